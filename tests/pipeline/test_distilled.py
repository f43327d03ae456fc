"""A few-step model: a base with a LoRA in its weights that says how it is run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import stable_diffusion.pipeline.models as model_module
from stable_diffusion.adapters.attach import attach
from stable_diffusion.adapters.distilled import FORMAT
from stable_diffusion.errors import BrokenModel, ModelFileError, UnknownModel
from stable_diffusion.evaluation.bench import QUICK
from stable_diffusion.evaluation.sections.stability import order_of
from stable_diffusion.pipeline.generate import generate_image
from stable_diffusion.pipeline.models import load
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.containers.hashes import sha256
from stable_diffusion.weights.containers.safetensors import write_safetensors
from stable_diffusion.weights.load import load_parts

LAYER = "mid.resblock1.conv1"


@pytest.fixture(scope="module")
def base(tiny_native_parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_native(path, tiny_native_parts, dtype="float32")
    return path


def few_step(folder: Path, base: Path, **changed: str) -> Path:
    """A LoRA of one convolution that says how it is run."""
    weight = load_parts(base).unet.state_dict()[f"{LAYER}.weight"]
    random = torch.Generator().manual_seed(5)
    tensors = {
        f"unet.{LAYER}.lora_down.weight": torch.randn(2, *weight.shape[1:], generator=random),
        f"unet.{LAYER}.lora_up.weight": torch.randn(weight.shape[0], 2, 1, 1, generator=random),
    }
    told = {"format": FORMAT, "base_sha256": sha256(base), "steps": "3", "guidance": "1"}
    told |= {"sampler": "euler", "schedule": "sgm_uniform"} | changed
    write_safetensors(folder / "fast.safetensors", tensors, {key: value for key, value in told.items() if value})
    return folder / "fast.safetensors"


@pytest.fixture
def shipped(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`ship(fast)`: a few-step model takes the place of the built-in one for this test."""

    def ship(fast: Path | None) -> None:
        monkeypatch.setattr(model_module, "model_path", lambda: base)
        monkeypatch.setattr(model_module, "fast_path", lambda: fast)
        model_module.MODELS.clear()

    yield ship
    model_module.MODELS.clear()


def test_it_paints_as_the_base_does_with_the_lora(shipped, base: Path, tmp_path: Path) -> None:
    fast = few_step(tmp_path, base)
    shipped(fast)
    model = load("embedded-fast", device="cpu")
    assert (model.name, model.defaults.steps, model.defaults.guidance) == ("embedded-fast", 3, 1.0)
    assert (model.defaults.sampler, model.defaults.schedule) == ("euler", "sgm_uniform")
    assert model.hash == sha256(fast)[:10] and not model.attachments
    settings = {"steps": 3, "guidance": 1.0, "sampler": "euler", "schedule": "sgm_uniform", "seed": 4}
    made = generate_image("a cat", model=model, seed=4)
    order = order_of(SimpleNamespace(model=model, plan=QUICK))
    assert order is not None and order["model"] == "embedded-fast", "another process loads it by its name"
    plain = load("embedded", device="cpu")
    assert plain.defaults.steps != 3 or plain.hash != model.hash
    without = generate_image("a cat", model=plain, **settings)
    with attach(plain.networks, fast):
        expected = generate_image("a cat", model=plain, **settings)
    assert made.tobytes() == expected.tobytes() != without.tobytes()
    assert "Model: embedded-fast" in made.info["parameters"] and "Steps: 3" in made.info["parameters"]


def test_without_its_file_the_error_says_so(shipped) -> None:
    shipped(None)
    with pytest.raises(ModelFileError, match="no few-step model"):
        load("embedded-fast", device="cpu")
    assert load("embedded", device="cpu").name == "embedded"


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"base_sha256": "0" * 64}, BrokenModel, "distilled from a model with sha256 '0000"),
        ({"format": ""}, UnknownModel, "does not say how it is run"),
        ({"schedule": ""}, UnknownModel, "does not say how it is run"),
        ({"steps": "few"}, BrokenModel, "asks for steps 'few'"),
    ],
)
def test_files_of_other_kinds(
    shipped, base: Path, tmp_path: Path, changed: dict[str, str], error: type[Exception], message: str
) -> None:
    shipped(few_step(tmp_path, base, **changed))
    with pytest.raises(error, match=message):
        load("embedded-fast", device="cpu")
