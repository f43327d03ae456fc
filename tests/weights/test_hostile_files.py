"""What a hostile file can cost: every container refuses in one sentence what would take the reader's time or memory, or
lead it to a crash. What a file asks to be run or to be read from elsewhere is in the tests of each reader."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Backend

import tiny_checkpoints as tiny
from stable_diffusion.errors import BrokenModel, InvalidRequest, ModelFileError, UnsafeFile, brief, printable
from stable_diffusion.latents import LatentFormat
from stable_diffusion.pipeline.text import clip_tokenizer
from stable_diffusion.text.tokenizer import Tokenizer
from stable_diffusion.text.tokenizer_files import write_clip_tokenizer
from stable_diffusion.weights.checkpoints.folder import read_index
from stable_diffusion.weights.containers.limits import check_latent_numbers
from stable_diffusion.weights.containers.open import read_tensors
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.parts import TokenizerSource

CPU_SECONDS = 30
"""Seconds of processor time that no refusal may take; the longest takes about 5."""


def safetensors(path: Path, header: bytes) -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def zipped(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return path


def shaped(dtype: str, shape: list[int]) -> bytes:
    return json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}}).encode()


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(path: Path, key: str, value: str, shape: tuple[int, ...] = (4,), kind: int = 0, data: bytes = b"") -> Path:
    """One text as metadata, one tensor "a", float32 where no other kind is given."""
    dims = b"".join(struct.pack("<Q", side) for side in shape)
    tensor = text("a") + struct.pack("<I", len(shape)) + dims + struct.pack("<IQ", kind, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text(key) + struct.pack("<I", 8) + text(value) + tensor
    path.write_bytes(head + bytes(-len(head) % 32) + data.ljust(64, b"\0"))
    return path


def nested_dictionaries(width: int, depth: int) -> bytes:
    """A pickle of dictionaries of which each holds the one before it under `width` keys: width^depth when unfolded."""
    made = b"\x80\x02}q\x00"
    for level in range(depth):
        pairs = b"".join(b"M" + struct.pack("<H", key) + b"h" + bytes([level]) for key in range(width))
        made += b"}(" + pairs + b"uq" + bytes([level + 1])
    return made + b"."


def flat_dictionary(count: int) -> bytes:
    pairs = b"".join(b"J" + struct.pack("<i", key) + b"}" for key in range(count))
    return b"\x80\x02}(" + pairs + b"u."


def empty_view(shape: tuple[int, ...]) -> bytes:
    """A tensor without elements whose sides cannot be multiplied in 64 bits."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x00tQ"
    sides = b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", side) for side in shape) + b"t"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + sides + sides + b"\x89NtR"
    return b"\x80\x02}X\x01\x00\x00\x00a" + tensor + b"s."


BOMBS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "safetensors of a million objects": (
        lambda p: safetensors(p, b"{" + b",".join(b'"%x":{"":{}}' % n for n in range(1_900_000)) + b"}"),
        "JSON values",
    ),
    "safetensors of a million lists": (lambda p: safetensors(p, b'{"a":[' + b"[]," * 10_000_000 + b"[]]}"), "JSON v"),
    "safetensors of a million notes": (
        lambda p: safetensors(p, b'{"__metadata__":{' + b",".join(b'"%x":""' % n for n in range(2_000_000)) + b"}}"),
        "JSON values",
    ),
    "pickle of a million keys": (lambda p: zipped(p, flat_dictionary(1_000_000)), "more than 2000000 operations"),
    "pickle of many lists": (lambda p: zipped(p, b"\x80\x02" + b"]" * 60_000_000 + b"."), "more than 2000000 opera"),
    "pickle that unfolds": (lambda p: zipped(p, nested_dictionaries(100, 6)), "unfold to more than"),
}
"""Name -> (writes a file under 64 MiB, what the refusal says)."""


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_bounded_time(name: str, tmp_path: Path) -> None:
    write, words = BOMBS[name]
    path = write(tmp_path / "bomb.safetensors")
    started = time.process_time()
    with pytest.raises(UnsafeFile, match=words) as caught:
        read_tensors(path)
    assert time.process_time() - started < CPU_SECONDS
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


MEASURE = """
import resource, sys
from stable_diffusion.errors import UnsafeFile
from stable_diffusion.weights.containers.open import read_tensors
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        read_tensors(path)
    except UnsafeFile:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_bombs_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / f"{number}.safetensors")) for number, (write, _) in enumerate(BOMBS.values())]
    command = [sys.executable, "-c", MEASURE, *paths]
    grown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=500).stdout
    assert int(grown) < 400, f"{grown} MiB"


def test_a_long_list_of_zip_entries_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.ckpt", pickle.dumps({}, 2))
    good = bytearray(path.read_bytes())
    assert len(read_tensors(path)[0]) == 0
    claimed = struct.pack("<I", 9 * 2**20)
    for tail in (b"", b"a comment"):
        wrong = good[:-10] + claimed + good[-6:-2] + struct.pack("<H", len(tail)) + tail
        path.write_bytes(wrong)
        with pytest.raises(UnsafeFile, match="list of zip entries of 9437184 bytes"):
            read_tensors(path)
    wide = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 2**40, 2**40, 2**50, 0)
    place = b"PK\x06\x07" + struct.pack("<IQI", 0, len(good) - 22, 1)
    path.write_bytes(good[:-22] + wide + place + good[-22:])
    with pytest.raises(UnsafeFile, match=f"list of zip entries of {2**50} bytes"):
        read_tensors(path)


def test_a_real_list_of_many_entries_is_refused(tmp_path: Path) -> None:
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 200_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, count * len(entry), 30, 0)
    (tmp_path / "a.ckpt").write_bytes(b"PK\3\4" + bytes(26) + entry * count + end)
    with pytest.raises(UnsafeFile, match="list of zip entries"):
        read_tensors(tmp_path / "a.ckpt")


@pytest.mark.parametrize("zipped_layout", [True, False])
def test_numbers_of_thousands_of_digits_are_left_out(tmp_path: Path, zipped_layout: bool) -> None:
    """Python refuses to write them as text."""
    value = {
        "epoch": 10**6000,
        "step": 3,
        "state_dict": {"w": torch.ones(2), 10**6000: torch.ones(2), 7: {"b": torch.ones(1)}},
    }
    torch.save(value, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped_layout)
    tensors, scalars = read_tensors(tmp_path / "a.ckpt")
    assert list(tensors) == ["w", "7.b"] and scalars == {"step": "3"}


SHAPES = ((2**61, 2**61, 0), (0, 2**61, 2**61), (2**31, 0, 2**31))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_empty_tensors_whose_sides_cannot_be_multiplied(shape: tuple[int, ...], tmp_path: Path) -> None:
    files = [
        safetensors(tmp_path / "a.safetensors", shaped("F32", list(shape))),
        gguf(tmp_path / "a.gguf", "general.name", "a", shape),
    ]
    with zipfile.ZipFile(zipped(tmp_path / "a.ckpt", empty_view(shape)), "a") as archive:
        archive.writestr("archive/data/0", b"")
    for path in (*files, tmp_path / "a.ckpt"):
        with pytest.raises(UnsafeFile, match="shape") as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value)


def test_an_empty_tensor_of_a_pickle_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped(tmp_path / "a.ckpt", empty_view((3, 0, 2))), "a") as archive:
        archive.writestr("archive/data/0", b"")
    assert read_tensors(tmp_path / "a.ckpt")[0]["a"].shape == (3, 0, 2)


@pytest.mark.parametrize("field", ["dtype", "shape", "data_offsets"])
@pytest.mark.parametrize("depth", [100, 900, 960, 980, 990, 5000])
def test_deep_lists_inside_an_entry(field: str, depth: int, tmp_path: Path) -> None:
    entry = json.dumps({"dtype": "F32", "shape": [1], "data_offsets": [0, 4], field: "deep"})
    header = f'{{"a":{entry}}}'.replace('"deep"', "[" * depth + "]" * depth)
    with pytest.raises(UnsafeFile) as caught:
        read_tensors(safetensors(tmp_path / "a.safetensors", header.encode()))
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("key", ["general.alignment", "comfy.gguf.orig_shape.a"])
@pytest.mark.parametrize("value", ["²", "٣٢", "-1", "9" * 4000, ""])
def test_texts_where_gguf_has_numbers(key: str, value: str, tmp_path: Path) -> None:
    path = gguf(tmp_path / "a.gguf", key, value)
    if not value and key != "general.alignment":
        assert read_tensors(path)[0].shape("a") == (4,)
        return
    with pytest.raises(UnsafeFile):
        read_tensors(path)


def test_a_scale_that_is_not_finite_is_read_without_a_warning(tmp_path: Path, recwarn: Any) -> None:
    path = gguf(tmp_path / "a.gguf", "general.name", "a", (32,), kind=2, data=b"\x00\x7c")  # Q4_0, scale inf
    assert not bool(read_tensors(path)[0]["a"].isfinite().any()) and not recwarn.list


# --- diffusers folders ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_folder(tiny.SD1, tmp_path / "model")


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("depth", [900, 970, 985, 100_000])
def test_deep_json_in_any_file_of_a_folder(depth: int, folder: Path) -> None:
    for name in ("tokenizer/tokenizer_config.json", "vae/config.json", "model_index.json"):
        good = (folder / name).read_text()
        (folder / name).write_text('{"x":' + "[" * depth + ("]" * depth + "}" if depth < 1000 else ""))
        try:
            parts = load_parts(folder)
            clip_tokenizer(parts.tokenizer, parts.clip)
            assert name.startswith("tokenizer") and depth < 1000, "its settings are optional"
        except ModelFileError as error:
            assert "\n" not in str(error)
        (folder / name).write_text(good)


@pytest.mark.parametrize("scale", [0, 1e-300, "a", [], True, float("nan"), {}])
def test_scales_of_latents_that_are_none(scale: Any, folder: Path) -> None:
    edit(folder / "vae" / "config.json", scaling_factor=scale)
    with pytest.raises(BrokenModel, match=r"scal\w+"):
        load_parts(folder)
    edit(folder / "vae" / "config.json", scaling_factor=0.2, shift_factor="s")
    with pytest.raises(BrokenModel, match="shift"):
        load_parts(folder)
    with pytest.raises(InvalidRequest, match="shift of a latent is inf"):
        check_latent_numbers(LatentFormat(channels=4, shift=(0.0, 0.0, 0.0, float("inf"))))


def test_names_in_a_folder_stay_one_short_line(folder: Path) -> None:
    edit(folder / "model_index.json", unet=None, _class_name="a\nb\x1b[2J" * 1000)
    with pytest.raises(ModelFileError) as caught:
        read_index(folder)
    assert printable(str(caught.value)) == str(caught.value) and len(str(caught.value)) < 300 + len(str(folder))
    edit(folder / "model_index.json", unet=["diffusers", "UNet2DConditionModel"])
    edit(folder / "unet" / "config.json", act_fn="a\nb" * 1000)
    with pytest.raises(BrokenModel) as caught:
        load_parts(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(folder))


def clip_folder(place: Path, **files: str) -> Path:
    write_clip_tokenizer(place, None)
    for stem, content in files.items():
        (place / {"vocab": "vocab.json", "merges": "merges.txt", "config": "tokenizer_config.json"}[stem]).write_text(
            content
        )
    return place


@pytest.mark.parametrize(
    "files",
    [
        {"vocab": "[" * 100_000},
        {"vocab": "[]"},
        {"vocab": '{"<|startoftext|>": 1, "<|endoftext|>": "x"}'},
        {"vocab": '{"<|startoftext|>": 1, "<|endoftext|>": -1}'},
        {"vocab": " " * (17 << 20)},
        {"merges": "a b c\n"},
        {"merges": "a" * 10**6},
        {"merges": "a b\n" * (5 << 20)},
        {"config": "[" * 100_000},
    ],
    ids=lambda files: str(files)[:60],
)
def test_vocabularies_that_are_none(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(BrokenModel) as caught:
        Tokenizer.from_folder(clip_folder(tmp_path / "tokenizer", **files))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 + len(str(tmp_path))


def test_a_token_beyond_the_text_encoder_is_refused(tmp_path: Path, folder: Path) -> None:
    place = clip_folder(tmp_path / "tokenizer")
    edit(place / "vocab.json", **{"cat</w>": 10**6})
    with pytest.raises(BrokenModel, match="a token of id 1000000, the text encoder only 49408"):
        clip_tokenizer(TokenizerSource(folder=place), load_parts(folder).clip)


def test_a_pattern_that_never_ends_is_one_sentence(tmp_path: Path) -> None:
    """The library panics, which Python sees as an exception that is no `Exception`. A file with such a pattern is
    refused before; whatever else may make it panic is told as well."""
    backend = json.loads(Tokenizer.clip()._backend.to_str())
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": True}
    text = json.dumps({**backend, "pre_tokenizer": pattern})
    with pytest.raises(BrokenModel, match="in which a group is repeated"):
        Tokenizer.from_json(text)
    tokenizer = Tokenizer(Backend.from_str(text), bos=49406, eos=49407, pad=49407)
    with pytest.raises(BrokenModel, match="the model's tokenizer cannot read a text"):
        tokenizer.encode("a" * 40 + "b")
    with pytest.raises(BrokenModel, match="cannot read a text"):
        tokenizer.pieces("a" * 40 + "b")


def test_what_a_file_says_is_cut_to_one_line() -> None:
    assert brief("a\n\tb\x1b[31m" + "c" * 100, 12) == "a b?[31mcccc" and brief(3) == "3"
    assert printable("é\u202e\ud800 ") == "é?? "
