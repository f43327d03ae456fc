"""Reader of GGUF files: a header checked before it is believed, quantised tensors as float32 when they are asked for.

Layout (the specification of ggml): "GGUF", version (uint32), counts of tensors and of metadata entries (uint64 each);
entries of key, type, value; tensors of name, dimensions (innermost first), type and offset; then the data, from the
next multiple of `general.alignment`. Texts are a length (uint64) and UTF-8 bytes.

Why not the library's `GGUFReader`: a file of 121 bytes makes it exhaust 4 GiB. Here the header is bounded in time and
memory before it is believed. The arithmetic of quantised blocks is that of the library `gguf`, which is imported when
one is read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import BrokenModel, ModelFileError, UnsafeFile
from .safetensors import TENSOR_LIMIT
from .tensors import MappedBytes, TensorFile, TensorInfo, is_addressable

ENTRY_LIMIT = 10_000
"""Most metadata entries accepted; files of diffusion models have about 20."""
ITEM_LIMIT = 300_000
"""Most texts in all arrays of the metadata together; the largest vocabularies have 260,000."""
TEXT_LIMIT = 2**20
KEPT = 4096
"""Longest text, and most characters of an array of numbers, that is kept as metadata."""
ALIGNMENT = 32
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
"""Metadata in which converters keep the shape of a tensor that was reshaped to whole blocks: one key per tensor."""

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9

PLAIN: dict[int, tuple[str, torch.dtype]] = {
    0: ("F32", torch.float32),
    1: ("F16", torch.float16),
    24: ("I8", torch.int8),
    25: ("I16", torch.int16),
    26: ("I32", torch.int32),
    27: ("I64", torch.int64),
    28: ("F64", torch.float64),
    30: ("BF16", torch.bfloat16),
}
"""Type number -> name and dtype of tensors stored number by number."""

BLOCKS: dict[int, tuple[str, int, int]] = {
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136),
}
"""Type number -> name, weights in a block and bytes of a block."""


@dataclass(frozen=True)
class Entry:
    """One tensor: how it is stored, its shape (outermost first) and its first byte in the file."""

    kind: int
    shape: tuple[int, ...]
    start: int

    @property
    def stored(self) -> str:
        return PLAIN[self.kind][0] if self.kind in PLAIN else BLOCKS[self.kind][0]

    @property
    def dtype(self) -> torch.dtype:
        """What the tensor has when it is read."""
        return PLAIN[self.kind][1] if self.kind in PLAIN else torch.float32

    @property
    def nbytes(self) -> int:
        if self.kind in PLAIN:
            return prod(self.shape) * PLAIN[self.kind][1].itemsize
        _, weights, size = BLOCKS[self.kind]
        return prod(self.shape) // weights * size


@dataclass
class Cursor:
    """A place in a file, moved by reading; every read is checked against the file's end."""

    path: Path
    file: Any
    size: int
    items: int = field(default=0)

    def take(self, count: int) -> bytes:
        if count > self.size - self.file.tell():
            raise BrokenModel(f"{self.path} is cut short: its GGUF header goes on beyond the end of the file")
        return bytes(self.file.read(count))

    def skip(self, count: int) -> None:
        if count > self.size - self.file.tell():
            raise BrokenModel(f"{self.path} is cut short: its GGUF header goes on beyond the end of the file")
        self.file.seek(count, 1)

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def text(self) -> str:
        length = self.number("Q")
        if length > TEXT_LIMIT:
            raise UnsafeFile(f"{self.path} has a text of {length} bytes in its header; at most {TEXT_LIMIT} are read")
        return self.take(length).decode("utf-8", errors="replace")


def read_gguf(path: Path) -> tuple[TensorFile, dict[str, str]]:
    """Tensors and metadata of a GGUF file. BrokenModel where it is cut short, UnsafeFile where it is malformed,
    ModelFileError where its version or a type of its tensors is not known."""
    size = path.stat().st_size
    with path.open("rb") as file:
        cursor = Cursor(path, file, size)
        cursor.skip(4)
        version, count, entries = cursor.number("I"), cursor.number("Q"), cursor.number("Q")
        if version not in (2, 3):
            raise ModelFileError(f"{path} is a GGUF file of version {version}; versions 2 and 3 are read")
        if count > TENSOR_LIMIT or entries > ENTRY_LIMIT:
            raise UnsafeFile(
                f"{path} claims {count} tensors and {entries} metadata entries; at most {TENSOR_LIMIT} and "
                f"{ENTRY_LIMIT} are accepted"
            )
        metadata = dict(_entry(cursor) for _ in range(entries))
        claimed = [_claim(cursor) for _ in range(count)]
        start = _aligned(cursor, metadata)
    found = _checked(path, claimed, start, size)
    return _tensor_file(path, found, metadata), {key: text for key, text in _public(metadata).items() if text}


def _entry(cursor: Cursor) -> tuple[str, str]:
    """(key, value as text) of the next metadata entry; an empty text for values that are too long to be kept."""
    key, kind = cursor.text(), cursor.number("I")
    if kind == TEXT:
        value = cursor.text()
    elif kind == ARRAY:
        value = _array(cursor)
    elif kind in SCALARS:
        value = str(cursor.number(SCALARS[kind]))
    else:
        raise UnsafeFile(f"{cursor.path} has metadata {key[:60]!r} of the unknown type {kind}")
    return key, value if len(value) <= KEPT else ""


def _array(cursor: Cursor) -> str:
    """A short array of numbers as text, "1280,320"; other arrays are passed over."""
    kind, count = cursor.number("I"), cursor.number("Q")
    if kind in SCALARS:
        size = struct.calcsize("<" + SCALARS[kind])
        if count > 16:
            cursor.skip(count * size)
            return ""
        return ",".join(str(cursor.number(SCALARS[kind])) for _ in range(count))
    cursor.items += count
    if kind != TEXT or cursor.items > ITEM_LIMIT:
        raise UnsafeFile(f"{cursor.path} has an array of {count} values of type {kind}; short texts are expected")
    for _ in range(count):
        cursor.skip(cursor.number("Q"))
    return ""


def _claim(cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """(name, shape, type, offset) of the next tensor, not yet believed."""
    name, dimensions = cursor.text(), cursor.number("I")
    if dimensions > 8:
        raise UnsafeFile(f"{cursor.path}: tensor {name[:80]!r} has {dimensions} dimensions; at most 8 are accepted")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    return name, shape[::-1], cursor.number("I"), cursor.number("Q")


def _aligned(cursor: Cursor, metadata: dict[str, str]) -> int:
    """The first byte of the data."""
    text = metadata.get("general.alignment", str(ALIGNMENT))
    if not _is_number(text) or not 1 <= int(text) <= 2**20:
        raise UnsafeFile(f"{cursor.path} has an alignment of {text[:20]}; a number from 1 to {2**20} is expected")
    position = cursor.file.tell()
    return int(-(-position // int(text)) * int(text))


def _is_number(text: str) -> bool:
    """Whether `int` reads a text: entries may be texts, and some digits of other scripts are no numbers to it."""
    return text.isascii() and text.isdigit()


def _checked(
    path: Path, claimed: list[tuple[str, tuple[int, ...], int, int]], start: int, size: int
) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for name, shape, kind, offset in claimed:
        what = f"{path}: tensor {name[:80]!r}"
        if name in found:
            raise UnsafeFile(f"{what} is listed twice")
        if kind not in PLAIN and kind not in BLOCKS:
            known = ", ".join([name for name, _ in PLAIN.values()] + [name for name, *_ in BLOCKS.values()])
            raise ModelFileError(f"{what} is stored in type number {kind}; known are {known}")
        if not all(0 <= side < 2**40 for side in shape) or prod(shape) >= 2**48 or not is_addressable(shape):
            raise UnsafeFile(f"{what} has the shape {str(list(shape))[:60]}, which no file can hold")
        block = 1 if kind in PLAIN else BLOCKS[kind][1]
        if block > 1 and (not shape or shape[-1] % block):
            raise UnsafeFile(f"{what} of shape {list(shape)} does not divide into blocks of {block}")
        entry = found[name] = Entry(kind, shape, start + offset)
        if entry.start + entry.nbytes > size:
            raise BrokenModel(f"{path} is cut short: tensor {name[:80]!r} ends outside the file")
    _check_overlap(path, found)
    return found


def _check_overlap(path: Path, entries: dict[str, Entry]) -> None:
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if entry.start < end:
            raise UnsafeFile(f"{path}: tensor {name[:80]!r} overlaps the tensor before it")
        end = entry.start + entry.nbytes


def _tensor_file(path: Path, entries: dict[str, Entry], metadata: dict[str, str]) -> TensorFile:
    mapped = MappedBytes(path)
    shapes = {name: _original(path, name, entry, metadata) for name, entry in entries.items()}

    def read(name: str) -> Tensor:
        entry = entries[name]
        if entry.kind in PLAIN:
            flat = mapped.tensor(entry.start, entry.dtype, prod(entry.shape))
        elif entry.nbytes == 0:
            flat = torch.empty(0)  # the library cannot read no blocks
        else:
            flat = torch.from_numpy(_dequantised(path, mapped, entry))
        return flat.reshape(shapes[name])

    infos = {name: TensorInfo(entry.dtype, shapes[name]) for name, entry in entries.items()}
    return TensorFile(path, infos, read, kind="gguf", stored={name: entry.stored for name, entry in entries.items()})


def _original(path: Path, name: str, entry: Entry, metadata: dict[str, str]) -> tuple[int, ...]:
    """The shape that a reshaped tensor had."""
    text = metadata.get(ORIGINAL_SHAPE + name)
    if not text:
        return entry.shape
    shape = tuple(int(side) for side in text.split(",") if _is_number(side))
    if prod(shape) != prod(entry.shape) or len(shape) != text.count(",") + 1 or not is_addressable(shape):
        raise UnsafeFile(f"{path}: tensor {name[:80]!r} of shape {list(entry.shape)} cannot have been {text[:60]}")
    return shape


def _dequantised(path: Path, mapped: MappedBytes, entry: Entry) -> Any:
    """Blocks -> float32, flat."""
    dequantise, kinds = _library(path, entry.stored)
    _, weights, size = BLOCKS[entry.kind]
    rows = prod(entry.shape[:-1])
    blocks = mapped.tensor(entry.start, torch.uint8, entry.nbytes).numpy()
    with np.errstate(all="ignore"):  # a damaged scale makes numbers that are not finite, as it would in any file
        return dequantise(blocks.reshape(rows, entry.shape[-1] // weights * size), kinds(entry.kind)).reshape(-1)


def _library(path: Path, stored: str) -> tuple[Callable[..., Any], Any]:
    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as error:
        raise ModelFileError(
            f"{path} has tensors of type {stored}, and reading them needs the package gguf: "
            "pip install 'stable-diffusion[gguf]'"
        ) from error
    return dequantize, GGMLQuantizationType


def _public(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata for people, with title and licence under the names that safetensors files have for them."""
    shown = {key: text for key, text in metadata.items() if not key.startswith((ORIGINAL_SHAPE, "tokenizer."))}
    for theirs, ours in (("general.name", "modelspec.title"), ("general.license", "modelspec.license")):
        if theirs in shown:
            shown.setdefault(ours, shown[theirs])
    return shown
