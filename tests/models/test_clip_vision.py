"""The CLIP image encoder against transformers with equal random weights, and its files in both layouts."""

import dataclasses
import json

import pytest
import torch
from PIL import Image

from stable_diffusion.errors import BrokenModel, InvalidRequest, UnknownModel
from stable_diffusion.models.clip_vision import CLIPVision, CLIPVisionConfig, prepared
from stable_diffusion.weights.clip_vision import clip_vision_openclip, clip_vision_transformers, load_clip_vision
from stable_diffusion.weights.safetensors_writer import write_safetensors

SMALL = CLIPVisionConfig(
    image_size=30, patch_size=7, width=24, layers=3, heads=4, mlp_width=40, activation="gelu", projection_dim=13
)
QUICK = dataclasses.replace(SMALL, activation="quick_gelu", heads=3, layers=2)


@pytest.fixture(params=[SMALL, QUICK], ids=["gelu", "quick_gelu"])
def pair(request, randomise):
    """(ours, transformers') with equal random weights."""
    transformers = pytest.importorskip("transformers")
    config = request.param
    reference = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            projection_dim=config.projection_dim,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
            hidden_act=config.activation,
        )
    )
    randomise(reference)
    with torch.device("meta"):
        ours = CLIPVision(config)
    ours.load_state_dict(clip_vision_transformers(config).convert(reference.state_dict()), assign=True)
    return ours.eval(), reference


def pictures(size=30):
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_equals_transformers(pair, relative_error):
    ours, reference = pair
    image = pictures()
    expected = reference(image, output_hidden_states=True)
    assert relative_error(ours(image).embedding, expected.image_embeds) < 1e-5
    for layer in range(-1, -ours.config.layers - 2, -1):  # -2 is what detailed image prompts are made from
        assert relative_error(ours(image, layer=layer).tokens, expected.hidden_states[layer]) < 1e-5
    assert torch.equal(ours(image, layer=0).tokens, ours(image, layer=-ours.config.layers - 1).tokens)


def test_norms_have_the_same_epsilon(pair):
    ours, reference = pair
    theirs = {module.eps for module in reference.modules() if isinstance(module, torch.nn.LayerNorm)}
    assert theirs == {module.eps for module in ours.modules() if isinstance(module, torch.nn.LayerNorm)}


@pytest.mark.parametrize("shape", [(41, 60), (60, 41), (30, 30), (12, 20)])
def test_preparation_equals_transformers(shape):
    """Middle greys, so that nothing is cut off between their two passes of 8 bits."""
    transformers = pytest.importorskip("transformers")
    image = torch.randint(70, 186, (*shape, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30}, do_convert_rgb=False
    )

    theirs = processor(Image.fromarray(image.numpy()), return_tensors="pt")["pixel_values"]
    ours = prepared(image.permute(2, 0, 1)[None].float() / 255, 30)
    assert (ours - theirs).abs().max() < 2.1 / 255 / 0.26  # two steps of 8 bits, after division by the deviation


@torch.no_grad()
def test_folder_and_single_files_load(tmp_path, randomise):
    made = randomise(CLIPVision(QUICK))
    image = pictures()
    expected = made(image).embedding
    theirs = clip_vision_transformers(QUICK).invert(made.state_dict())
    more = {"text_model.final_layer_norm.weight": torch.ones(3), "logit_scale": torch.ones(())}
    folder = tmp_path / "image_encoder"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", {**theirs, **more}, {})
    settings = {
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3,
        "image_size": 30, "patch_size": 7, "hidden_act": "quick_gelu", "projection_dim": 13,
    }  # fmt: skip
    for config in (settings, {"vision_config": settings}):
        (folder / "config.json").write_text(json.dumps(config))
        assert torch.equal(load_clip_vision(folder)(image).embedding, expected)
    # single files: the size is what the patches cover, and 24 wide means one head of 64 or less
    wanted = dataclasses.replace(QUICK, image_size=28, heads=1)
    single = CLIPVision(wanted).eval()
    single.load_state_dict(made.state_dict())
    expected = single(image[..., :28, :28]).embedding
    write_safetensors(tmp_path / "a.safetensors", theirs, {})
    openclip = clip_vision_openclip(QUICK).prefixed("visual.").invert(made.state_dict())
    write_safetensors(tmp_path / "b.safetensors", {**openclip, "text_projection": torch.ones(3)}, {})
    for name in ("a", "b"):
        loaded = load_clip_vision(tmp_path / f"{name}.safetensors")
        assert loaded.config == wanted
        torch.testing.assert_close(loaded(image[..., :28, :28]).embedding, expected)


def test_public_sizes_are_known_from_their_shapes(tmp_path):
    """Widths of ViT-L/14, H/14 and bigG/14 with one layer: heads and activation are those of the public models."""
    for width, heads, activation in ((1024, 16, "quick_gelu"), (1280, 16, "gelu"), (1664, 16, "gelu")):
        config = CLIPVisionConfig(
            width=width, heads=heads, layers=1, mlp_width=8, image_size=28, activation=activation, projection_dim=5
        )
        path = tmp_path / f"{width}.safetensors"
        write_safetensors(path, clip_vision_transformers(config).invert(CLIPVision(config).state_dict()), {})
        assert load_clip_vision(path).config == config


def test_bad_input_says_why(tmp_path, randomise):
    made = CLIPVision(SMALL)
    with pytest.raises(InvalidRequest, match=r"\[3, 31, 30\] was given; expected \[3, 30, 30\]"):
        made(torch.zeros(1, 3, 31, 30))
    with pytest.raises(InvalidRequest, match="layer is 4; expected -4 to 3"):
        made(torch.zeros(1, 3, 30, 30), layer=4)
    with pytest.raises(InvalidRequest, match="patch_size is 31"):
        dataclasses.replace(SMALL, patch_size=31)
    write_safetensors(tmp_path / "x.safetensors", {"some.weight": torch.ones(2)}, {})
    with pytest.raises(UnknownModel, match="no CLIP image encoder"):
        load_clip_vision(tmp_path / "x.safetensors")
    theirs = clip_vision_transformers(SMALL).invert(made.state_dict())
    del theirs["vision_model.post_layernorm.bias"]
    write_safetensors(tmp_path / "y.safetensors", theirs, {})
    with pytest.raises(BrokenModel, match=r"1 tensor is missing: vision_model\.post_layernorm\.bias"):
        load_clip_vision(tmp_path / "y.safetensors")


def test_vit_l_has_its_known_size():
    with torch.device("meta"):
        tower = CLIPVision(CLIPVisionConfig())
    assert sum(parameter.numel() for parameter in tower.parameters()) == 303_966_208
