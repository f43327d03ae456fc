"""Safetensors files: what is right is read bit for bit, what is wrong is refused in one sentence."""

from __future__ import annotations

import json
import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stable_diffusion.errors import BrokenModel, ModelFileError, UnsafeFile
from stable_diffusion.weights.containers.open import read_tensors
from stable_diffusion.weights.containers.safetensors import DTYPES, HEADER_LIMIT

GOOD = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
}


def write(path: Path, header: Any, data: bytes = bytes(32), length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def changed(name: str, **fields: Any) -> dict[str, Any]:
    return {**GOOD, name: {**GOOD[name], **fields}}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype_is_read_as_the_reference_library_wrote_it(tmp_path: Path, dtype: torch.dtype) -> None:
    numbers = torch.randint(0, 2, (3, 5)) if dtype == torch.bool else torch.arange(15).reshape(3, 5)
    tensor = numbers.to(dtype)
    save_file({"x": tensor, "empty": tensor[:0].clone()}, tmp_path / "a.safetensors", metadata={"k": "v"})
    tensors, metadata = read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"k": "v"}
    assert tensors["x"].dtype == dtype and tensors["empty"].shape == (0, 5)
    assert torch.equal(tensors["x"].view(torch.uint8), tensor.view(torch.uint8))


def test_misaligned_data_is_read(tmp_path: Path) -> None:
    values = torch.randn(3)
    header = json.dumps({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    for padding in range(4):
        path = write(tmp_path / f"{padding}.safetensors", header + b" " * padding, values.numpy().tobytes())
        assert torch.equal(read_tensors(path)[0]["x"], values)


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", GOOD)
    before = path.read_bytes()
    read_tensors(path)[0]["a"].fill_(7)
    assert path.read_bytes() == before


def test_info_knows_shapes_without_reading(tmp_path: Path) -> None:
    tensors, _ = read_tensors(write(tmp_path / "a.safetensors", GOOD))
    assert tensors.shape("a") == (2, 3) and tensors.info("b").dtype == torch.float16 and tensors.shape("c") is None
    assert list(tensors) == ["a", "b"] and "a" in tensors and "c" not in tensors and len(tensors) == 2


MALFORMED = {
    "negative offset": changed("a", data_offsets=[-24, 0]),
    "reversed offsets": changed("a", data_offsets=[24, 0]),
    "three offsets": changed("a", data_offsets=[0, 24, 24]),
    "float offset": changed("a", data_offsets=[0.0, 24]),
    "true for one": changed("b", shape=[True, 4]),
    "negative size": changed("a", shape=[-2, -3]),
    "shape disagrees": changed("a", shape=[2, 4]),
    "shape overflows": changed("a", shape=[2**40, 2**40]),
    "overlap": changed("b", data_offsets=[20, 28]),
    "hole": changed("b", data_offsets=[26, 34]),
    "unknown dtype": changed("a", dtype="F31"),
    "dtype is a list": changed("a", dtype=["F32"]),
    "wrong dtype": changed("a", dtype="F64"),
    "extra field": changed("a", path="/etc/passwd"),
    "entry is a number": {**GOOD, "a": 3},
    "not an object": [1, 2],
    "metadata of numbers": {**GOOD, "__metadata__": {"step": 3}},
    "not JSON": b'{"a": nonsense}',
    "not UTF-8": b'{"\xff\xfe": 1}',
    "nested for ever": b'{"a":' + b"[" * 200_000,
    "huge number": b'{"a": ' + b"9" * 100_000 + b"}",
    "same name twice": b'{"a": {"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
    b' "a": {"dtype":"U8","shape":[32],"data_offsets":[0,32]}}',
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED)
def test_malformed_headers_are_refused(tmp_path: Path, header: Any) -> None:
    with pytest.raises(UnsafeFile) as caught:
        read_tensors(write(tmp_path / "a.safetensors", header))
    message = str(caught.value)
    assert "a.safetensors" in message and "\n" not in message and len(message) < 500 + len(str(tmp_path))


def test_bytes_after_the_last_tensor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFile, match="1 bytes after its last tensor"):
        read_tensors(write(tmp_path / "a.safetensors", GOOD, bytes(33)))


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 60, -1, -20])
def test_a_file_cut_anywhere_is_called_broken(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "a.safetensors", GOOD)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BrokenModel, match=r"cut short|empty"):
        read_tensors(path)


@pytest.mark.parametrize("length", [HEADER_LIMIT + 1, 2**63, 2**64 - 1])
def test_an_oversized_header_is_refused_before_it_is_read(tmp_path: Path, length: int) -> None:
    with pytest.raises(UnsafeFile, match="at most"):
        read_tensors(write(tmp_path / "a.safetensors", GOOD, length=length))


def test_a_million_names_are_refused_quickly(tmp_path: Path) -> None:
    entry = b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    small = b"{" + b",".join(entry % index for index in range(1_000_000)) + b"}"
    started = time.process_time()
    with pytest.raises(UnsafeFile, match="at most"):
        read_tensors(write(tmp_path / "a.safetensors", small, b""))
    assert time.process_time() - started < 5


def test_many_names_within_the_limit_are_read_in_bounded_time(tmp_path: Path) -> None:
    header = {str(index): {"dtype": "U8", "shape": [1], "data_offsets": [index, index + 1]} for index in range(100_000)}
    started = time.process_time()
    tensors, _ = read_tensors(write(tmp_path / "a.safetensors", header, bytes(100_000)))
    assert len(tensors) == 100_000 and time.process_time() - started < 20


def test_mutated_files_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    """4,000 random edits of a good file: either it is still a good file, or one of our own errors says why not."""
    good = write(tmp_path / "good.safetensors", {**GOOD, "__metadata__": {"k": "v"}}).read_bytes()
    source, path, refused = random.Random(0), tmp_path / "mutant.safetensors", 0
    pieces = [b"{", b"}", b"[", b"]", b'"', b",", b"-", b"9", b"1e9", b"null", b"true", b"\\u0000", b"\x00", b"\xff"]
    for _ in range(4000):
        mutant = bytearray(good)
        for _ in range(source.randint(1, 3)):
            at = source.randrange(len(mutant))
            kind = source.randrange(4)
            if kind == 0:
                mutant[at] = source.randrange(256)
            elif kind == 1:
                del mutant[at : at + source.randint(1, 8)]
            elif kind == 2:
                mutant[at:at] = source.choice(pieces)
            else:
                mutant[at : at + 1] = source.choice(pieces)
        path.write_bytes(mutant)
        try:
            tensors, metadata = read_tensors(path)
            assert sum(tensor.nbytes for tensor in tensors.values()) <= len(mutant)
            assert all(isinstance(value, str) for value in metadata.values())
        except ModelFileError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 2000 < refused < 4000


def test_metadata_that_is_null_says_nothing(tmp_path: Path) -> None:
    tensors, metadata = read_tensors(write(tmp_path / "a.safetensors", {**GOOD, "__metadata__": None}))
    assert sorted(tensors) == ["a", "b"] and metadata == {}
