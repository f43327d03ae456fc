"""Autoencoders and text encoders in files of their own, in the place of a model's and where it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_checkpoints as tiny
import tiny_xl as xl
from stable_diffusion.errors import InvalidRequest, ModelFileError, UnknownModel
from stable_diffusion.weights.checkpoints.components import load_vae
from stable_diffusion.weights.checkpoints.families import FAMILIES
from stable_diffusion.weights.load import load_parts

UNET, VAE = "model.diffusion_model.", "first_stage_model."
State = Mapping[str, torch.Tensor]


class Model:
    """A folder, and the tensors of its single file."""

    def __init__(self, kind: Any, place: Path) -> None:
        self.kind = kind
        module = xl if isinstance(kind, xl.Kind) else tiny
        self.folder = module.write_folder(kind, place)
        state = xl.single_state if module is xl else tiny.ldm_state
        self.state: State = state(kind, self.folder)
        self.parts = load_parts(self.folder)
        self.settings = {"prediction": "v"} if kind is tiny.SD2 else {}

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        return tiny.under(self.state, prefix)


@pytest.fixture(scope="module", params=[tiny.SD1, tiny.SD2, xl.BASE, xl.REFINER], ids=lambda kind: kind.name)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(request.param, tmp_path_factory.mktemp(request.param.name))


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tiny.SD1, tmp_path_factory.mktemp("sd1"))


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def scaled(state: State, factor: float = 1.5) -> dict[str, torch.Tensor]:
    return {name: tensor * factor if tensor.is_floating_point() else tensor for name, tensor in state.items()}


FORMS: dict[str, Callable[[Model, Path], dict[str, torch.Tensor]]] = {
    "released names": lambda model, place: model.under(VAE),
    "with prefix": lambda model, place: {VAE + name: tensor for name, tensor in model.under(VAE).items()},
    "diffusers' names": lambda model, place: load_file(model.folder / "vae" / "diffusion_pytorch_model.safetensors"),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_autoencoder_takes_the_place_of_the_models_own(sd1: Model, form: str, tmp_path: Path) -> None:
    file = tmp_path / "vae.safetensors"
    save_file(scaled(FORMS[form](sd1, tmp_path)), file)
    save_file(dict(sd1.state), tmp_path / "model.safetensors")
    for base in (sd1.folder, tmp_path / "model.safetensors"):
        parts = load_parts(base, vae=file)
        assert not same(parts.vae, sd1.parts.vae) and same(parts.unet, sd1.parts.unet)
        expected = scaled(sd1.parts.vae.state_dict())
        assert all(torch.equal(tensor, expected[name]) for name, tensor in parts.vae.state_dict().items())


def test_a_folder_or_a_whole_checkpoint_may_give_its_autoencoder(sd1: Model, tmp_path: Path) -> None:
    save_file(dict(sd1.state), tmp_path / "model.safetensors")
    for place in (sd1.folder, sd1.folder / "vae", tmp_path / "model.safetensors"):
        assert same(load_vae(place), sd1.parts.vae)


def test_a_network_in_another_layout_inside_a_file(model: Model, tmp_path: Path) -> None:
    """The layout is that of each network: diffusers' autoencoder, and a text encoder in transformers' names."""
    vae = load_file(model.folder / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(text_files(model)[-1])
    prefix = next(text.prefix for text in FAMILIES[model.parts.family].texts[::-1])
    state = {name: tensor for name, tensor in model.state.items() if not name.startswith((VAE, prefix))}
    state |= {VAE + name: tensor for name, tensor in vae.items()} | {prefix + key: value for key, value in text.items()}
    save_file(state, tmp_path / "mixed.safetensors")
    clip_layer = {"clip_layer": -1} if model.kind is tiny.SD2 else {}  # the folder's encoder ends where it is read
    parts = load_parts(tmp_path / "mixed.safetensors", **model.settings, **clip_layer)
    for name in ("unet", "vae", "clip", "clip2"):
        expected = getattr(model.parts, name)
        assert (getattr(parts, name) is None) if expected is None else same(getattr(parts, name), expected), name


def text_files(model: Model) -> list[Path]:
    """The text encoders in transformers' layout, as their folders have them."""
    return [place / "model.safetensors" for place in sorted(model.folder.glob("text_encoder*"))]


def test_a_denoiser_alone_is_whole_with_the_files_of_the_others(model: Model, tmp_path: Path) -> None:
    save_file(model.under(UNET), tmp_path / "unet.safetensors")
    save_file(model.under(VAE), tmp_path / "vae.safetensors")
    clip_layer = {"clip_layer": -1} if model.kind is tiny.SD2 else {}  # the folder's encoder ends where it is read
    parts = load_parts(
        tmp_path / "unet.safetensors", vae=tmp_path / "vae.safetensors", text_encoders=text_files(model)[::-1],
        **model.settings, **clip_layer,
    )  # fmt: skip
    assert parts.family == model.parts.family and parts.latents == model.parts.latents
    for name in ("unet", "vae", "clip", "clip2"):
        expected = getattr(model.parts, name)
        assert (getattr(parts, name) is None) if expected is None else same(getattr(parts, name), expected), name


def test_a_text_encoder_takes_the_place_of_the_one_of_its_width(model: Model, tmp_path: Path) -> None:
    save_file(dict(model.state), tmp_path / "model.safetensors")
    text = load_file(text_files(model)[-1])
    save_file(scaled(text), tmp_path / "text.safetensors")
    for base in (model.folder, tmp_path / "model.safetensors"):
        settings = model.settings if base.is_file() else {}
        parts = load_parts(base, text_encoders=[tmp_path / "text.safetensors"], **settings)
        changed = "clip" if model.parts.clip2 is None else "clip2"
        made, old = getattr(parts, changed).state_dict(), getattr(model.parts, changed).state_dict()
        assert all(torch.equal(made[name], 1.5 * tensor) for name, tensor in old.items())
        assert changed == "clip" or same(parts.clip, model.parts.clip)


def test_files_of_another_kind_are_named_in_one_sentence(sd1: Model, tmp_path: Path) -> None:
    save_file(sd1.under(UNET), tmp_path / "unet.safetensors")
    with pytest.raises(UnknownModel, match="no autoencoder"):
        load_parts(sd1.folder, vae=tmp_path / "unet.safetensors")
    with pytest.raises(UnknownModel, match="no text encoder"):
        load_parts(sd1.folder, text_encoders=[tmp_path / "unet.safetensors"])
    with pytest.raises(ModelFileError, match="no text encoder"):
        load_parts(tmp_path / "unet.safetensors")
    wide = {"text_model.embeddings.token_embedding.weight": torch.zeros(100, 32)}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(InvalidRequest, match="width 32"):
        load_parts(sd1.folder, text_encoders=[tmp_path / "wide.safetensors"])
