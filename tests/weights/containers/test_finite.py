"""NaN and infinite numbers in model files: found at the first use, in what is used, and told in one sentence."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import stable_diffusion as sd
import tiny_checkpoints as tiny
from stable_diffusion.convert import convert
from stable_diffusion.errors import BrokenModel
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.weights.check import damaged
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.containers.finite import check_at_first_use, not_finite, not_finite_message
from stable_diffusion.weights.load import _probed, load_parts, read_blueprint

UNET = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
DECODER = "first_stage_model.decoder.conv_in.weight"
ENCODER = "first_stage_model.encoder.conv_in.bias"


def spoiled(single: Path, place: Path, *names: str, value: float = float("nan")) -> Path:
    """A copy of a single file in which one number of each of `names` is another."""
    state = load_file(single)
    for name in names:
        state[name].view(-1)[-1] = value
    with single.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    save_file(state, place, metadata=header.get("__metadata__"))
    return place


def painted(model: sd.StableDiffusion) -> Image.Image:
    return sd.generate_image("a cat", model=model, steps=1, width=64, height=64, seed=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e5m2, torch.complex64]
)
def test_one_number_among_many_is_found(dtype: torch.dtype, value: float) -> None:
    base = torch.full((7, 300), 3e4 if dtype != torch.float8_e5m2 else 100.0)
    wrong = base.clone()
    wrong[5, 299] = value
    state = {"fine": base.to(dtype), "wrong": wrong.to(dtype), "empty": torch.zeros(0), "ids": torch.arange(3)}
    assert not_finite(state) == ["wrong"]
    assert not_finite({"column": wrong.to(dtype).t(), "whole": torch.ones((), dtype=dtype)}) == ["column"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_first_picture_names_file_and_tensor(single: Path, tmp_path: Path, dtype: str) -> None:
    path = spoiled(single, tmp_path / "broken.safetensors", UNET)
    model = sd.load(path, device="cpu", dtype=dtype)
    for _ in range(2):  # and every later one
        with pytest.raises(BrokenModel) as error:
            painted(model)
        text = str(error.value)
        assert str(path) in text and f"not finite (NaN or infinite) in the tensor {UNET}" in text and "\n" not in text


def test_what_is_not_used_does_not_matter(single: Path, tmp_path: Path) -> None:
    """Averaged weights, position numbers and tables beside the weights may hold anything."""
    state = load_file(single)
    state["model_ema.diffusion_modelinput_blocks00weight"][:] = float("nan")
    state["alphas_cumprod"][:] = float("inf")
    ids = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    if ids in state:
        state[ids] = torch.full((1, 77), float("nan"))
    save_file(state, tmp_path / "odd.safetensors", metadata={"modelspec.prediction_type": "v"})
    assert not damaged(tmp_path / "odd.safetensors")
    model = sd.load(tmp_path / "odd.safetensors", device="cpu")
    assert painted(model).size == (64, 64)


def test_an_encoder_that_no_picture_needs_does_not_matter(single: Path, tmp_path: Path) -> None:
    path = spoiled(single, tmp_path / "blind.safetensors", ENCODER)
    model = sd.load(path, device="cpu")
    picture = painted(model)
    with pytest.raises(BrokenModel, match=f"not finite.*{ENCODER}"):
        model.image_encoder(picture)


def test_a_good_model_is_looked_at_once(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stable_diffusion.weights.containers import finite

    looked: list[int] = []
    real = finite.not_finite
    monkeypatch.setattr(finite, "not_finite", lambda state: looked.append(len(state)) or real(state))
    parts = load_parts(single)
    assert not looked
    twin = copy.deepcopy(parts.vae)
    for _ in range(2):
        parts.vae.decode(torch.zeros(1, 4, 2, 2))
    halves = len(looked)
    assert halves == 2  # post_quant_conv and decoder
    twin.decode(torch.zeros(1, 4, 2, 2))
    assert len(looked) == 2 * halves  # a copy is looked at for itself


IDS = torch.zeros(1, 77, dtype=torch.int64)


def compiled_by(way: str, network: torch.nn.Module, **settings: Any) -> Any:
    """The network, compiled in one of the ways that torch has."""
    if way == "in place":
        network.compile(backend="eager", **settings)
        return network
    if way == "in a function":
        return torch.compile(lambda ids: network(ids), backend="eager", **settings)
    return torch.compile(network, backend="eager", **settings)


ONE_FAMILY = pytest.mark.parametrize("kind", [tiny.SD1], ids=["sd1"], indirect=True)
"""Compiling takes long, and the text encoders of both families are one class."""


@ONE_FAMILY
@pytest.mark.parametrize("way", ["module", "in place", "in a function"])
def test_a_compiled_network_is_looked_at(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    from stable_diffusion.weights.containers import finite

    looked: list[int] = []
    real = finite.not_finite
    monkeypatch.setattr(finite, "not_finite", lambda state: looked.append(len(state)) or real(state))
    torch.compiler.reset()
    good = load_parts(single).clip
    run = compiled_by(way, good, fullgraph=True)
    for _ in range(2):
        assert bool(run(IDS).tokens.isfinite().all())
    assert len(looked) == 1  # the second call runs the graph alone
    path = spoiled(single, tmp_path / "broken.safetensors", *text_names(single))
    # code compiled for the good one does not do for these of the same shapes
    run = compiled_by(way, load_parts(path).clip, fullgraph=True)
    with pytest.raises((BrokenModel, torch._dynamo.exc.Unsupported), match=r"BrokenModel|token_embedding"):
        run(IDS)  # where the graph has to be whole, torch itself reports what is raised while it traces
    run = compiled_by(way, load_parts(path).clip)
    for _ in range(2):
        with pytest.raises(BrokenModel, match=r"broken\.safetensors .* not finite.*token_embedding"):
            run(IDS)


def text_names(single: Path) -> list[str]:
    return [name for name in load_file(single) if name.endswith("token_embedding.weight")]


@ONE_FAMILY
def test_a_copy_and_a_pickle_are_compiled_for_themselves(single: Path) -> None:
    clip = load_parts(single).clip
    twin, stored = copy.deepcopy(clip), pickle.loads(pickle.dumps(clip))
    with torch.no_grad():
        twin.token_embedding.weight[0, 0] = float("inf")
    assert bool(torch.compile(clip, backend="eager", fullgraph=True)(IDS).tokens.isfinite().all())
    assert bool(torch.compile(stored, backend="eager", fullgraph=True)(IDS).tokens.isfinite().all())
    with pytest.raises(BrokenModel):
        torch.compile(twin, backend="eager")(IDS)


def test_a_network_that_is_asked_for_its_prediction_may_be_broken(single: Path) -> None:
    """What it predicts stays a guess then, so that it can be converted; its first use says what is wrong."""
    unet = UNet(UNetConfig(channels=(320,), blocks_per_stage=1, transformer_depth=0, mid_depth=0, heads=8))
    found = replace(read_blueprint(single), guesses=("prediction 'v' is a guess",), prediction="v")
    check_at_first_use(unet, "it", {})
    assert "inferred" in _probed(unet, found).guesses[0]
    broken = copy.deepcopy(unet)
    broken.load_state_dict({name: tensor * float("nan") for name, tensor in unet.state_dict().items()})
    for hook in broken._forward_pre_hooks.values():
        hook.done = False
    assert _probed(broken, found) == found


def test_what_is_written_anew_is_looked_at(single: Path, folder: Path, tmp_path: Path) -> None:
    assert not [note for note in convert(single, tmp_path / "good").notes if "finite" in note]
    path = spoiled(single, tmp_path / "broken.safetensors", UNET, DECODER, ENCODER)
    for name in ("folder", "anew.safetensors"):
        notes = [note for note in convert(path, tmp_path / name).notes if "finite" in note]
        assert len(notes) == 2 and all("\n" not in note and "they are written as they are" in note for note in notes)
        assert f"in the tensor {UNET};" in notes[0]
        assert f"in the tensors {ENCODER}, {DECODER};" in notes[1] and str(path) in notes[1]
    assert sorted(damaged(tmp_path / "anew.safetensors")) == sorted([UNET, DECODER, ENCODER])
    before, after = load_file(path), load_file(tmp_path / "anew.safetensors")
    for name in (UNET, DECODER, ENCODER):
        assert torch.equal(before[name].view(torch.int32), after[name].view(torch.int32))
    notes = [note for note in convert(tmp_path / "folder", tmp_path / "b").notes if "finite" in note]
    assert len(notes) == 2 and "unet" in notes[0] and "vae" in notes[1]


def test_the_file_of_a_part_of_its_own_is_named(single: Path, tmp_path: Path, kind: tiny.Kind) -> None:
    state, vae, text = load_file(single), "first_stage_model.", "cond_stage_model."
    prefix = text + ("transformer." if kind.name == "sd1" else "model.")
    parts = {
        "vae": {name.removeprefix(vae): tensor for name, tensor in state.items() if name.startswith(vae)},
        "text": {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)},
    }
    token = next(name for name in parts["text"] if name.endswith("token_embedding.weight"))
    parts["vae"]["decoder.conv_in.weight"][0, 0, 0, 0] = parts["text"][token][0, 0] = float("inf")
    for name, tensors in parts.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    model = sd.load(single, device="cpu", vae=tmp_path / "vae.safetensors")
    with pytest.raises(BrokenModel, match=r"^\S*/vae\.safetensors looks .* the tensor decoder\.conv_in\.weight$"):
        model.image_decoder(torch.zeros(1, 4, 2, 2))
    model = sd.load(single, device="cpu", text_encoders=tmp_path / "text.safetensors")
    with pytest.raises(BrokenModel, match=rf"the tensor {prefix}{token} of \S*/text\.safetensors$"):
        model.text_encoder("a cat")


def test_numbers_beyond_float16_are_told_as_such(single: Path, tmp_path: Path) -> None:
    path = spoiled(single, tmp_path / "large.safetensors", DECODER, value=1e6)
    load_parts(path).vae.decode(torch.zeros(1, 4, 2, 2))
    with pytest.raises(BrokenModel, match=r"decoder\.conv_in\.weight; float16 may be too narrow.*dtype='float32'"):
        load_parts(path, dtype=torch.float16).vae.decode(torch.zeros(1, 4, 2, 2, dtype=torch.float16))


def test_all_that_is_damaged_is_listed(single: Path, folder: Path, tmp_path: Path, kind: tiny.Kind) -> None:
    assert not damaged(single) and not damaged(folder)
    path = spoiled(single, tmp_path / "broken.safetensors", UNET, DECODER, value=float("inf"))
    assert sorted(damaged(path)) == sorted([UNET, DECODER])
    copied = tmp_path / "folder"
    shutil.copytree(folder, copied)
    weights = copied / "vae" / "diffusion_pytorch_model.safetensors"
    spoiled(weights, weights, "decoder.conv_in.weight")
    assert damaged(copied) == ["vae/decoder.conv_in.weight"]
    model = sd.load(copied, device="cpu")
    with pytest.raises(BrokenModel, match=r"vae/diffusion_pytorch_model\.safetensors has .* decoder\.conv_in\.weight$"):
        model.image_decoder(torch.zeros(1, 4, 2, 2))


def test_a_scale_of_our_own_format(single: Path, tmp_path: Path, kind: tiny.Kind) -> None:
    if kind.name != "sd1":
        pytest.skip("one family is enough: the format is the same for all")
    path = tmp_path / "native.safetensors"
    save_native(path, load_parts(single), dtype="int8")
    assert not damaged(path)
    scale = next(name for name in load_file(path) if name.startswith("unet.") and name.endswith(".scale"))
    spoiled(path, path, scale)
    assert damaged(path) == [scale]
    with pytest.raises(BrokenModel, match=f"unet of .* not finite.*{scale.split('.', 1)[1].removesuffix('.scale')}"):
        painted(sd.load(path, device="cpu"))


@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_sentence_is_short(count: int) -> None:
    text = not_finite_message("x.safetensors", ["name"] * count, torch.zeros(1))
    assert text.count("name") == min(count, 3) and (f"and {count - 3} more" in text) == (count > 3)
