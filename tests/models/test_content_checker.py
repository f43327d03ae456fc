"""The check of content against diffusers' with equal random weights, from a folder, a pipeline and a single file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stable_diffusion.errors import BrokenModel, UnknownModel
from stable_diffusion.weights.networks.content_checker import load_content_checker

PICTURES = 24


@pytest.fixture
def reference(randomise):
    transformers = pytest.importorskip("transformers")
    safety = pytest.importorskip("diffusers.pipelines.stable_diffusion.safety_checker")
    vision = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 28, "patch_size": 7, "hidden_act": "quick_gelu"}
    config = transformers.CLIPConfig(vision_config=vision, projection_dim=20)
    made = randomise(safety.StableDiffusionSafetyChecker(config))
    generator = torch.Generator().manual_seed(3)
    for name in ("concept_embeds", "special_care_embeds"):
        value = getattr(made, name)
        value.data.copy_(torch.randn(value.shape, generator=generator))
    made.concept_embeds_weights.data.uniform_(0.3, 0.6, generator=generator)
    made.special_care_embeds_weights.data.uniform_(0.0, 0.2, generator=generator)
    return made


def agree(ours, reference):
    """Flags of pictures that lie on both sides of the thresholds."""
    pixels = torch.randn(PICTURES, 3, 28, 28, generator=torch.Generator().manual_seed(4)) * 4
    expected = reference(pixels, [np.zeros((4, 4, 3)) for _ in range(PICTURES)])[1]
    with torch.no_grad():
        middle = _middle(ours, pixels)
        assert ours(pixels).tolist() == expected
    for checker in (ours, reference):  # thresholds in the middle of what there is
        thresholds = checker.concept_thresholds if checker is ours else checker.concept_embeds_weights
        thresholds.data.fill_(middle)
    expected = reference(pixels, [np.zeros((4, 4, 3)) for _ in range(PICTURES)])[1]
    with torch.no_grad():
        assert ours(pixels).tolist() == expected and 0 < sum(expected) < PICTURES


def _middle(ours, pixels):
    normal = torch.nn.functional.normalize
    scores = normal(ours.tower(pixels).embedding, dim=-1) @ normal(ours.concepts, dim=-1).T
    return float(scores.max(dim=1).values.median())


@pytest.mark.parametrize("kind", ["folder", "pipeline", "released"])
def test_equals_diffusers(kind: str, reference, tmp_path: Path) -> None:
    folder = tmp_path / "safety_checker"
    reference.save_pretrained(folder)
    state = reference.state_dict()
    if not any(name.startswith(2 * "vision_model.") for name in state):  # as versions of transformers before 5 had it
        state = {f"vision_model.{name}" if name.startswith("vision_model.") else name: t for name, t in state.items()}
    save_file(state, folder / "released.safetensors")
    path = {"folder": folder, "pipeline": tmp_path, "released": folder / "released.safetensors"}[kind]
    agree(load_content_checker(path), reference)


def test_pictures_of_any_kind(reference, tmp_path: Path) -> None:
    reference.save_pretrained(tmp_path)
    checker = load_content_checker(tmp_path)
    assert checker.flags([]) == []
    assert len(checker.flags([Image.new("RGBA", (40, 90)), Image.new("L", (64, 30)), Image.new("P", (7, 7))])) == 3


def test_other_files_are_refused(reference, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UnknownModel, match="no checker of content"):
        load_content_checker(tmp_path / "other.safetensors")
    state = {name: tensor for name, tensor in reference.state_dict().items() if "post_layernorm" not in name}
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(BrokenModel):
        load_content_checker(tmp_path / "part.safetensors")
