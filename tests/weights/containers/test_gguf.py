"""GGUF: every kind of tensor as the library dequantises it, the names of other programs, and hostile headers."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_files import random_blocks, write_gguf
from safetensors.torch import load_file

import tiny_checkpoints as tiny
import tiny_xl as xl
from stable_diffusion.errors import BrokenModel, ModelFileError, UnsafeFile
from stable_diffusion.weights.checkpoints.places import rename_to_ldm
from stable_diffusion.weights.containers.open import read_tensors
from stable_diffusion.weights.describe import inspect
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.networks.clip import clip_openclip, clip_transformers

Kind = gguf.GGMLQuantizationType
WRITTEN = (Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1)
READ_ONLY = (Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.IQ4_NL, Kind.IQ4_XS)


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.name)
def test_tensors_are_what_the_library_makes_of_them(kind: Kind, tmp_path: Path) -> None:
    values = torch.randn(6, 64, generator=torch.Generator().manual_seed(1))
    file = write_gguf(tmp_path / "a.gguf", {"w": values, "bias": values[0, :7]}, kind)
    tensors, _ = read_tensors(file)
    expected = gguf.quants.dequantize(gguf.quants.quantize(values.numpy(), kind), kind)
    assert tensors.kind == "gguf" and tensors.info("w").shape == (6, 64)
    assert tensors.stored("w") == {"F32": "F32", "F16": "F16", "BF16": "BF16"}.get(kind.name, kind.name)
    assert torch.equal(tensors["w"].float(), torch.from_numpy(np.array(expected)))
    assert torch.equal(tensors["bias"], values[0, :7])
    assert float((tensors["w"].float() - values).abs().max()) < 0.5


@pytest.mark.parametrize("kind", READ_ONLY, ids=lambda kind: kind.name)
def test_kinds_that_the_library_only_reads(kind: Kind, tmp_path: Path) -> None:
    blocks = random_blocks(kind, 3, 512)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "sd1")
    writer.add_tensor("w", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors, _ = read_tensors(tmp_path / "a.gguf")
    assert tensors.info("w").shape == (3, 512) and tensors.stored("w") == kind.name
    assert torch.equal(tensors["w"], torch.from_numpy(gguf.quants.dequantize(blocks, kind)))


def test_reshaped_tensors_have_their_shape_back(tmp_path: Path) -> None:
    values = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "sd1")
    writer.add_tensor("conv.weight", values.reshape(-1, 32).numpy())
    writer.add_array("comfy.gguf.orig_shape.conv.weight", [8, 4, 3, 3])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert torch.equal(read_tensors(tmp_path / "a.gguf")[0]["conv.weight"], values)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, torch.Tensor]]]:
    """A folder and the tensors of a single file, of 1.x, 2.x and XL."""
    place = tmp_path_factory.mktemp("gguf")
    made = {}
    for kind in (tiny.SD1, tiny.SD2):
        folder = tiny.write_folder(kind, place / kind.name)
        made[kind.name] = (folder, tiny.ldm_state(kind, folder))
    folder = xl.write_folder(xl.BASE, place / "sdxl")
    made["sdxl"] = (folder, xl.single_state(xl.BASE, folder))
    return made


def like_cpp(name: str, folder: Path, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of stable-diffusion.cpp: all text encoders as transformers has them, the projection as OpenCLIP has."""
    if name == "sd1":
        return state
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(("cond_stage_model", "conditioner"))}
    if name == "sd2":
        config = tiny.clip_config(tiny.SD2, tiny.CLIP_LAYERS + 1)
        text = {key.removeprefix("cond_stage_model.model."): t for key, t in state.items() if "cond_stage" in key}
        ours = clip_openclip(config).convert(text)
        theirs = clip_transformers(config).invert(ours)
        return kept | {f"cond_stage_model.transformer.{key}": tensor for key, tensor in theirs.items()}
    first = load_file(folder / "text_encoder" / "model.safetensors")
    first = clip_transformers(xl.CLIP_L).invert(clip_transformers(xl.CLIP_L).convert(first))
    second = load_file(folder / "text_encoder_2" / "model.safetensors")
    second = clip_transformers(xl.CLIP_G).invert(clip_transformers(xl.CLIP_G).convert(second))
    second["text_model.text_projection"] = second.pop("text_projection.weight").t().contiguous()
    kept |= {f"cond_stage_model.transformer.{key}": tensor for key, tensor in first.items()}
    return kept | {f"cond_stage_model.1.transformer.{key}": tensor for key, tensor in second.items()}


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("names", ["released", "stable-diffusion.cpp"])
def test_a_model_in_gguf_is_that_of_the_folder(models: dict, name: str, names: str, tmp_path: Path) -> None:
    folder, state = models[name]
    if names != "released":
        state = like_cpp(name, folder, state)
    file = write_gguf(tmp_path / "model.gguf", state, Kind.F32, name="A model")
    prediction = "v" if name == "sd2" else "eps"
    made, expected = load_parts(file, prediction=prediction), load_parts(folder)
    assert made.family == expected.family and made.card.name == "A model"
    for part in ("unet", "vae", "clip", "clip2"):
        if getattr(expected, part) is None:
            continue
        weights = getattr(made, part).state_dict()
        for key, tensor in getattr(expected, part).state_dict().items():
            assert torch.equal(weights[key], tensor), (part, key)


def test_a_quantised_model_is_near_and_info_says_how_it_is_stored(models: dict, tmp_path: Path) -> None:
    folder, state = models["sd1"]
    file = write_gguf(tmp_path / "model-Q8_0.gguf", state, Kind.Q8_0)
    found = inspect(file)
    assert (found["container"], found["family"]) == ("gguf", "sd1") and found["dtype"] in ("Q8_0", "F32")
    made, expected = load_parts(file), load_parts(folder)
    name = "down.0.transformers.0.blocks.0.mlp.up.weight"
    exact, near = expected.unet.state_dict()[name], made.unet.state_dict()[name]
    assert 0 < float((near - exact).norm() / exact.norm()) < 0.01


def test_a_denoiser_alone_is_known_without_its_prefix(models: dict, tmp_path: Path) -> None:
    prefix = "model.diffusion_model."
    state = {key.removeprefix(prefix): t for key, t in models["sd1"][1].items() if key.startswith(prefix)}
    tensors = rename_to_ldm(read_tensors(write_gguf(tmp_path / "unet.gguf", state, Kind.F16))[0])
    assert all(name.startswith(prefix) for name in tensors) and len(tensors) == len(state)
    with pytest.raises(BrokenModel, match="no text encoder"):
        load_parts(tmp_path / "unet.gguf")


def test_without_the_library_only_quantised_tensors_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(tmp_path / "a.gguf", {"w": torch.ones(2, 32), "bias": torch.ones(3)}, Kind.Q8_0)
    monkeypatch.setitem(sys.modules, "gguf", None)
    tensors, _ = read_tensors(file)
    assert torch.equal(tensors["bias"], torch.ones(3))
    with pytest.raises(ModelFileError, match=r"pip install 'stable-diffusion\[gguf\]'"):
        tensors["w"]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    dims = b"".join(struct.pack("<Q", side) for side in shape)
    return text(name) + struct.pack("<I", len(shape)) + dims + struct.pack("<IQ", kind, offset)


def header(*tensors: bytes, entries: bytes = b"", count: int | None = None, kv: int = 0, version: int = 3) -> bytes:
    counts = struct.pack("<IQQ", version, len(tensors) if count is None else count, kv)
    return b"GGUF" + counts + entries + b"".join(tensors)


HOSTILE: dict[str, tuple[bytes, type[Exception], str]] = {
    "cut short": (b"GGUF\x03\0\0\0", BrokenModel, "cut short"),
    "unknown version": (header(version=9), ModelFileError, "version 9"),
    "too many tensors": (header(count=2**40), UnsafeFile, "claims"),
    "too many entries": (header(kv=2**40), UnsafeFile, "claims"),
    "name beyond the end": (header(struct.pack("<Q", 2**19) + b"ab"), BrokenModel, "cut short"),
    "endless name": (header(struct.pack("<Q", 2**60)), UnsafeFile, "bytes in its header"),
    "endless array": (
        header(entries=text("a") + struct.pack("<IIQ", 9, 8, 2**60), kv=1), UnsafeFile, "array of"
    ),
    "endless numbers": (
        header(entries=text("a") + struct.pack("<IIQ", 9, 4, 2**60), kv=1), BrokenModel, "cut short"
    ),
    "array of arrays": (header(entries=text("a") + struct.pack("<IIQ", 9, 9, 4), kv=1), UnsafeFile, "array of"),
    "unknown metadata": (header(entries=text("a") + struct.pack("<I", 77), kv=1), UnsafeFile, "unknown type 77"),
    "unknown kind": (header(tensor("a", (4,), 99, 0)) + bytes(64), ModelFileError, "type number 99"),
    "no whole blocks": (header(tensor("a", (5,), 2, 0)) + bytes(64), UnsafeFile, "blocks of 32"),
    "outside": (header(tensor("a", (4,), 0, 2**40)) + bytes(64), BrokenModel, "ends outside"),
    "huge shape": (header(tensor("a", (2**39, 2**39), 0, 0)) + bytes(64), UnsafeFile, "no file can hold"),
    "many dimensions": (header(tensor("a", (1,) * 9, 0, 0)) + bytes(64), UnsafeFile, "9 dimensions"),
    "twice": (header(tensor("a", (4,), 0, 0), tensor("a", (4,), 0, 32)) + bytes(99), UnsafeFile, "twice"),
    "overlap": (header(tensor("a", (4,), 0, 0), tensor("b", (4,), 0, 8)) + bytes(99), UnsafeFile, "overlaps"),
    "alignment": (
        header(entries=text("general.alignment") + struct.pack("<II", 4, 0), kv=1), UnsafeFile, "alignment of 0"
    ),
    "wrong original shape": (
        header(
            tensor("a", (4,), 0, 0),
            entries=text("comfy.gguf.orig_shape.a") + struct.pack("<IIQii", 9, 5, 2, 3, 3), kv=1,
        ) + bytes(99), UnsafeFile, "cannot have been",
    ),
}  # fmt: skip


def test_a_quantised_tensor_without_elements_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(header(tensor("a", (32, 0), 2, 0)) + bytes(64))
    tensors, _ = read_tensors(tmp_path / "a.gguf")
    assert tensors["a"].shape == tensors.info("a").shape == (0, 32) and tensors["a"].dtype == torch.float32


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    data, kind, message = HOSTILE[name]
    file = tmp_path / "a.gguf"
    file.write_bytes(data)
    with pytest.raises(kind, match=message) as caught:
        read_tensors(file)
    assert isinstance(caught.value, ModelFileError) and "\n" not in str(caught.value) and len(str(caught.value)) < 400
