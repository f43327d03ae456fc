"""The image tower against transformers with equal random weights, from a folder and from single files."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stable_diffusion.errors import BrokenModel, InvalidRequest, UnknownModel
from stable_diffusion.models.clip_image import clip_pixels
from stable_diffusion.models.clip_vision import CLIPVision, CLIPVisionConfig
from stable_diffusion.weights.networks.clip_vision import (
    clip_vision_openclip,
    clip_vision_transformers,
    load_clip_vision,
)

TOWER = CLIPVisionConfig(
    width=48, layers=3, heads=4, mlp_width=80, image_size=28, patch_size=7, projection_dim=20, activation="gelu"
)


@pytest.fixture(params=["gelu", "quick_gelu"])
def reference(request, randomise):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=TOWER.width, intermediate_size=TOWER.mlp_width, num_hidden_layers=TOWER.layers,
        num_attention_heads=TOWER.heads, image_size=TOWER.image_size, patch_size=TOWER.patch_size,
        projection_dim=TOWER.projection_dim, hidden_act=request.param,
    )  # fmt: skip
    return randomise(transformers.CLIPVisionModelWithProjection(config))


def agree(ours, reference, relative_error):
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = reference(pixels, output_hidden_states=True)
        for layer in (-1, -2, -3):
            found = ours(pixels, layer=layer)
            assert relative_error(found.embedding, expected.image_embeds) < 1e-5
            assert relative_error(found.tokens, expected.hidden_states[layer]) < 1e-5


def test_a_folder_equals_transformers(reference, relative_error, tmp_path):
    reference.save_pretrained(tmp_path / "image_encoder")
    ours = load_clip_vision(tmp_path / "image_encoder")
    assert ours.config == dataclasses.replace(TOWER, activation=reference.config.hidden_act)
    agree(ours, reference, relative_error)


@pytest.mark.parametrize("layout", ["transformers", "openclip"])
def test_a_single_file_equals_transformers(layout, reference, relative_error, tmp_path):
    """A whole CLIP in one file, with its config beside it, as heads of such a small tower cannot be guessed."""
    reference.config.save_pretrained(tmp_path)
    state = dict(reference.state_dict())
    if layout == "openclip":
        ours = clip_vision_transformers(TOWER).convert(state)
        state = {f"visual.{name}": tensor for name, tensor in clip_vision_openclip(TOWER).invert(ours).items()}
        state |= {"token_embedding.weight": torch.ones(4, 3), "text_projection": torch.ones(3, 3)}
    else:
        state |= {"text_model.final_layer_norm.weight": torch.ones(3), "text_projection.weight": torch.ones(3, 3)}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "clip.safetensors")
    agree(load_clip_vision(tmp_path / "clip.safetensors"), reference, relative_error)


@pytest.mark.parametrize(
    ("width", "heads", "activation"), [(768, 12, "quick_gelu"), (1024, 16, "quick_gelu"), (1280, 16, "gelu")]
)
def test_without_a_config_the_width_tells_the_heads(width, heads, activation, tmp_path):
    made = CLIPVision(dataclasses.replace(TOWER, width=width, heads=heads, layers=1, mlp_width=8))
    state = clip_vision_transformers(made.config).invert(made.state_dict())
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "clip.safetensors")
    config = load_clip_vision(tmp_path / "clip.safetensors").config
    assert (config.heads, config.activation) == (heads, activation)


@pytest.mark.parametrize("size", [(640, 480), (301, 517), (224, 224), (50, 61)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_preprocessing_equals_transformers(size, mode):
    transformers = pytest.importorskip("transformers")
    noise = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    processor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)()
    expected = processor(image, return_tensors="pt").pixel_values
    torch.testing.assert_close(clip_pixels([image]), expected, rtol=0, atol=2e-6)


def test_transparent_parts_are_white():
    clear = clip_pixels([Image.new("RGBA", (30, 20), (200, 0, 0, 0))], 28)
    assert torch.equal(clear, clip_pixels([Image.new("RGB", (30, 20), "white")], 28))


def test_what_does_not_fit_is_said(tmp_path):
    with torch.no_grad():
        tower = CLIPVision(TOWER).eval()
    with pytest.raises(InvalidRequest, match=r"\(3, 14, 28\) was given; expected \(3, 28, 28\)"):
        tower(torch.zeros(1, 3, 14, 28))
    with pytest.raises(InvalidRequest, match="expected -3 to -1"):
        tower(torch.zeros(1, 3, 28, 28), layer=0)
    save_file({"something": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UnknownModel, match="not a CLIP image tower"):
        load_clip_vision(tmp_path / "other.safetensors")
    state = clip_vision_transformers(TOWER).invert(tower.state_dict())
    del state["vision_model.post_layernorm.bias"]
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "cut.safetensors")
    with pytest.raises(BrokenModel, match=r"1 tensor is missing: vision_model\.post_layernorm\.bias"):
        load_clip_vision(tmp_path / "cut.safetensors")
