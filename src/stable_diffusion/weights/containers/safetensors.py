"""Reader and writer of .safetensors files. The reader believes nothing in the header before checking it.

Layout (format documentation of huggingface/safetensors): 8 bytes little-endian header length N, N bytes of JSON
{"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}, then the data, which the tensors
cover without holes or overlaps.

Why not the library `safetensors`: its `safe_open` accepts a file with two tensors of one name, and takes 8 seconds and
1 GB for a header of 1,000,000 names. This reader refuses both at once, bounded in time and memory. The writer leaves
either the whole new file or what was there before, and equal tensors and metadata give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BrokenModel, UnsafeFile
from .atomic import atomic_file
from .packing import narrowed
from .tensors import MappedBytes, TensorFile, TensorInfo, is_addressable

HEADER_LIMIT = 32 * 2**20
"""Longest accepted header in bytes; that of the largest public checkpoints is under 1 MiB."""

TENSOR_LIMIT = 200_000
"""Most tensors accepted in a file; public diffusion checkpoints have under 5,000."""

SIGN_LIMIT = 16 * TENSOR_LIMIT
"""Most brackets, colons and commas in a header: a tensor has 13 at most 6 dimensions. They bound what parsing makes."""

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read_safetensors(path: Path) -> tuple[TensorFile, dict[str, str]]:
    """Tensors and metadata of a .safetensors file; BrokenModel where it is cut short, UnsafeFile where malformed."""
    size = path.stat().st_size
    header, data_start = _read_header(path, size)
    metadata = _check_metadata(path, header.pop("__metadata__", None))
    entries = {name: _check_entry(path, name, entry) for name, entry in header.items()}
    _check_layout(path, entries, size - data_start)
    mapped = MappedBytes(path)

    def read(name: str) -> Tensor:
        info, begin = entries[name]
        return mapped.tensor(data_start + begin, info.dtype, info.count).reshape(info.shape)

    def release(name: str) -> None:
        info, begin = entries[name]
        mapped.release(data_start + begin, info.nbytes)

    infos = {name: info for name, (info, _) in entries.items()}
    return TensorFile(path, infos, read, kind="safetensors", release=release), metadata


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The parsed header and the position of the first data byte."""
    if size < 8:
        raise BrokenModel(
            f"{path} is cut short: it has {size} bytes, and a safetensors file starts with 8 for its length"
        )
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_LIMIT:
            raise UnsafeFile(f"{path} claims a header of {length} bytes; at most {HEADER_LIMIT} are accepted")
        if 8 + length > size:
            raise BrokenModel(f"{path} is cut short: its header needs {8 + length} bytes and the file has {size}")
        raw = file.read(length)
    # Counted before parsing, so that a file of a million names costs one scan and no memory.
    claimed = raw.count(b'"data_offsets"')
    if claimed > TENSOR_LIMIT:
        raise UnsafeFile(f"{path} lists {claimed} tensors; at most {TENSOR_LIMIT} are accepted")
    signs = sum(raw.count(sign) for sign in b"{[:,")
    if signs > SIGN_LIMIT:
        raise UnsafeFile(f"{path} has a header of {signs} JSON values; at most {SIGN_LIMIT} are accepted")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise UnsafeFile(f"{path} has a safetensors header that is not valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise UnsafeFile(f"{path} has a safetensors header that is not a JSON object")
    return header, 8 + length


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice[:80]!r} occurs twice")
    return found


def _check_metadata(path: Path, metadata: object) -> dict[str, str]:
    if metadata is None:  # some writers say null where they have nothing to say
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UnsafeFile(f"{path} has safetensors metadata that is not an object of strings")
    return metadata


def _check_entry(path: Path, name: str, entry: object) -> tuple[TensorInfo, int]:
    """(dtype and shape, first data byte) of one header entry, after checking that they agree with each other."""
    what = f"{path}: tensor {name[:80]!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise UnsafeFile(f"{what} must have exactly dtype, shape and data_offsets")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise UnsafeFile(f"{what} has dtype {str(entry['dtype'])[:40]!r}; known are {', '.join(DTYPES)}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _is_naturals(shape) or len(shape) > 16 or not is_addressable(shape):
        raise UnsafeFile(
            f"{what} has shape {str(shape)[:60]}; expected at most 16 natural numbers that can be multiplied"
        )
    if not _is_naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise UnsafeFile(f"{what} has data_offsets {str(offsets)[:60]}; expected [begin, end] with begin <= end")
    if prod(shape) * dtype.itemsize != offsets[1] - offsets[0]:
        need = prod(shape) * dtype.itemsize
        raise UnsafeFile(
            f"{what} needs {need} bytes for its shape and dtype, its offsets give {offsets[1] - offsets[0]}"
        )
    return TensorInfo(dtype, tuple(shape)), offsets[0]


def _is_naturals(values: object) -> bool:
    # bool is an int in Python, and JSON's `true` must not pass for 1; 2**62 keeps products far from nonsense.
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**62 for value in values)


def _check_layout(path: Path, entries: dict[str, tuple[TensorInfo, int]], data_size: int) -> None:
    """The tensors must cover the data exactly, in some order, without overlaps or holes."""
    position = 0
    for name, (info, begin) in sorted(entries.items(), key=lambda item: (item[1][1], item[1][0].nbytes)):
        if begin != position:
            fault = "overlaps the tensor before it" if begin < position else "leaves a hole before it"
            raise UnsafeFile(f"{path}: tensor {name[:80]!r} {fault} (starts at byte {begin}, expected {position})")
        position += info.nbytes
    if position > data_size:
        raise BrokenModel(f"{path} is cut short: its tensors need {position} bytes and {data_size} are there")
    if position < data_size:
        raise UnsafeFile(f"{path} has {data_size - position} bytes after its last tensor, which the format forbids")


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, dtype: torch.dtype | None = None
) -> None:
    """Write `tensors` and `metadata` to `path` atomically; ModelFileError where the disk is full or refuses.

    `dtype` is that in which floating tensors are written, each cast when its turn comes; None keeps their own. One that
    holds numbers beyond the range of float16 is written as float32 then.
    """
    kinds = {name: narrowed(tensor, dtype).dtype for name, tensor in tensors.items()}
    # Wide elements first, as the reference writer does: then every tensor is aligned for its dtype.
    order = sorted(tensors, key=lambda name: (-kinds[name].itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name in order:
        tensor = tensors[name]
        end = position + tensor.numel() * kinds[name].itemsize
        header[name] = {
            "dtype": DTYPE_NAMES[kinds[name]],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    assert len(raw) <= HEADER_LIMIT, "our own reader would refuse this header"
    with atomic_file(path) as file:
        file.write(len(raw).to_bytes(8, "little"))
        file.write(raw)
        for name in order:
            flat = tensors[name].detach().to("cpu", kinds[name]).contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)
