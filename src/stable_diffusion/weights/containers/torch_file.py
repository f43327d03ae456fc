"""Reader of torch's pickled checkpoints (.ckpt .pt .pth .bin), zip and older stream layout, without running any code.

Sources: `torch.serialization` describes both layouts. Zip (since torch 1.6): `NAME/data.pkl` holds the object, in which
each storage is a persistent id ("storage", class, key, location, length), and `NAME/data/KEY` its bytes. Stream (older
torch): four pickles (magic number, protocol, system, object), a fifth with the list of keys, then per key the element
count as int64 and the bytes. `pickle_machine` reads the pickles; only the tensors asked for are taken out of the file.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BrokenModel, ModelFileError, UnsafeFile
from .pickle_calls import Storage, StoredTensor, TorchMachine
from .pickle_machine import Global, Inert
from .tensors import MappedBytes, TensorFile, TensorInfo, is_addressable

PICKLE_LIMIT = 64 * 2**20
"""Longest accepted data.pkl in bytes; that of a public checkpoint is under 2 MiB."""

DIRECTORY_LIMIT = 8 * 2**20
"""Longest accepted list of a zip's entries in bytes; a checkpoint of 5,000 tensors has half a MiB."""

VISIT_LIMIT = 1_000_000
"""Most values looked at in nested dictionaries: a few that hold one another many times unfold without end."""

PARAMETERS = Global("torch.nn.modules.container", "ParameterDict")
"""What the first textual inversions are saved in: a module, whose state has its parameters in a dictionary."""

STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STREAM_PROTOCOL = 1001

Extent = tuple[int, int]
"""(first byte, length in bytes) of a storage inside the file."""


def read_zip(path: Path) -> tuple[TensorFile, dict[str, str]]:
    """Tensors and scalar metadata of a zip checkpoint."""
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            prefix, entries = _check_entries(path, archive)
            pickled = archive.read(f"{prefix}data.pkl")
    except ModelFileError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OSError, ValueError) as error:
        raise BrokenModel(f"{path} is a damaged or cut-short checkpoint archive ({str(error)[:200]})") from error
    root = TorchMachine(str(path)).load(io.BytesIO(pickled))
    mapped = MappedBytes(path)

    def storage_bytes(storage: Storage) -> Extent:
        entry = entries.get(f"{prefix}data/{storage.key}")
        if entry is None:
            raise BrokenModel(f"{path} lacks the data of storage {storage.key[:40]!r}")
        if entry.file_size < storage.nbytes:
            raise BrokenModel(
                f"{path}: storage {storage.key[:40]!r} needs {storage.nbytes} bytes, has {entry.file_size}"
            )
        return _data_start(path, mapped, entry), storage.nbytes

    return _tensor_file(path, root, mapped, storage_bytes, kind="torch zip")


def _check_directory(path: Path) -> None:
    """Refuses a list of entries that is too long, before it is parsed.

    Its size is at byte 12 of the record of 22 bytes that ends a zip, before a comment of under 64 KiB, or at byte 40 of
    the wide record before that (PKWARE APPNOTE 4.3.16 and 4.3.14). The records are found where `zipfile` finds them.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 2**16 - 200))
        tail = file.read()
    plain = tail[-22:-18] == b"PK\x05\x06" and tail[-2:] == b"\0\0"
    at = len(tail) - 22 if plain else tail.rfind(b"PK\x05\x06")
    if at < 0:
        return  # no zip, which the library says too
    claimed = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\x06\x07":  # the place of the wide record, 56 bytes, and this one
        claimed = int.from_bytes(tail[at - 36 : at - 28], "little")
    if claimed > DIRECTORY_LIMIT:
        raise UnsafeFile(f"{path} has a list of zip entries of {claimed} bytes; at most {DIRECTORY_LIMIT} are accepted")


def _check_entries(path: Path, archive: zipfile.ZipFile) -> tuple[str, dict[str, zipfile.ZipInfo]]:
    """The archive's folder prefix and its entries by name; refuses bombs, foreign archives and other byte orders."""
    infos = archive.infolist()
    entries = {info.filename: info for info in infos}
    if len(entries) != len(infos):
        raise UnsafeFile(f"{path} is a zip archive in which two entries have the same name")
    for info in infos:
        # torch stores without compression, so nothing here can grow when it is read.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise UnsafeFile(
                f"{path} has the compressed entry {info.filename[:60]!r}; torch checkpoints are not compressed"
            )
    if sum(info.file_size for info in infos) > path.stat().st_size:
        raise UnsafeFile(f"{path} is a zip archive whose entries claim more bytes than the file has")
    pickles = [name for name in entries if re.fullmatch(r"([^/\\]+/)?data\.pkl", name)]
    if len(pickles) != 1:
        raise ModelFileError(f"{path} is a zip archive without a torch checkpoint in it (no data.pkl)")
    prefix = pickles[0][: -len("data.pkl")]
    if entries[pickles[0]].file_size > PICKLE_LIMIT:
        raise UnsafeFile(
            f"{path} has a pickle of {entries[pickles[0]].file_size} bytes; at most {PICKLE_LIMIT} are read"
        )
    if any(name.startswith(f"{prefix}code/") for name in entries):
        raise UnsafeFile(f"{path} is a TorchScript program, which would have to be run; a file of tensors is expected")
    order = entries.get(f"{prefix}byteorder")
    if order is not None and order.file_size < 16 and archive.read(order).strip() != b"little":
        raise ModelFileError(f"{path} was saved on a big-endian machine; only little-endian files are read")
    return prefix, entries


def _data_start(path: Path, mapped: MappedBytes, entry: zipfile.ZipInfo) -> int:
    """First data byte of a stored entry: past the local header, whose name and extra field have their own lengths."""
    fixed = 30  # bytes of a local file header before its name (PKWARE APPNOTE 4.3.7)
    if entry.header_offset < 0 or entry.header_offset + fixed > mapped.size:
        raise UnsafeFile(f"{path} has the zip entry {entry.filename[:60]!r} outside the file")
    header = bytes(mapped.tensor(entry.header_offset, torch.uint8, fixed).tolist())
    if header[:4] != b"PK\x03\x04":
        raise UnsafeFile(f"{path} has the zip entry {entry.filename[:60]!r} without a local header")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = entry.header_offset + fixed + int(name_length) + int(extra_length)
    if start + entry.file_size > mapped.size:
        raise BrokenModel(f"{path} is cut short: the zip entry {entry.filename[:60]!r} ends outside the file")
    return start


def read_stream(path: Path) -> tuple[TensorFile, dict[str, str]]:
    """Tensors and scalar metadata of a checkpoint in the stream layout (torch before 1.6)."""
    machine = TorchMachine(str(path))
    with path.open("rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as file:
        if machine.load(file) != STREAM_MAGIC:  # type: ignore[arg-type]
            raise UnsafeFile(f"{path} is a pickle that torch did not write; only torch checkpoints are read")
        protocol, system, root, keys = (machine.load(file) for _ in range(4))  # type: ignore[arg-type]
        if protocol != STREAM_PROTOCOL or not isinstance(system, dict) or not isinstance(keys, list):
            raise UnsafeFile(f"{path} does not follow the layout of a torch checkpoint")
        if system.get("little_endian") is not True:
            raise ModelFileError(f"{path} was saved on a big-endian machine; only little-endian files are read")
        extents = _stream_extents(path, file, machine.storages, keys)

    def storage_bytes(storage: Storage) -> Extent:
        if storage.key not in extents:
            raise BrokenModel(f"{path} lacks the data of storage {storage.key[:40]!r}")
        return extents[storage.key]

    return _tensor_file(path, root, MappedBytes(path), storage_bytes, kind="torch stream")


def _stream_extents(path: Path, file: mmap.mmap, storages: Mapping[str, Storage], keys: list[Any]) -> dict[str, Extent]:
    """Where each storage's bytes lie, walking the element counts in front of them."""
    extents: dict[str, Extent] = {}
    position = file.tell()
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise UnsafeFile(f"{path} lists a storage that its tensors do not mention")
        if position + 8 > len(file):
            raise BrokenModel(f"{path} is cut short: the data of its tensors ends early")
        count = int.from_bytes(file[position : position + 8], "little", signed=True)
        nbytes = count * storage.dtype.itemsize
        if count < 0 or position + 8 + nbytes > len(file):
            raise BrokenModel(f"{path} is cut short: storage {key[:40]!r} of {count} elements ends outside the file")
        if nbytes < storage.nbytes:
            raise UnsafeFile(f"{path}: storage {key[:40]!r} has {count} elements, its tensors expect {storage.count}")
        extents[key] = (position + 8, nbytes)
        position += 8 + nbytes
    return extents


def _tensor_file(
    path: Path, root: Any, mapped: MappedBytes, storage_bytes: Callable[[Storage], Extent], kind: str
) -> tuple[TensorFile, dict[str, str]]:
    found = collect(root, path)
    for name, tensor in found.tensors.items():
        _check_view(path, name, tensor)
        storage_bytes(tensor.storage)  # raises here rather than at the first use of the tensor

    def read(name: str) -> Tensor:
        stored = found.tensors[name]
        storage = stored.storage
        start, _ = storage_bytes(storage)
        elements = mapped.tensor(start, storage.dtype, storage.count)
        # as_strided counts its offset from the start of the memory behind the tensor, not from the tensor.
        return elements.as_strided(stored.shape, stored.stride, elements.storage_offset() + stored.offset)

    infos = {name: TensorInfo(tensor.storage.dtype, tensor.shape) for name, tensor in found.tensors.items()}
    return TensorFile(path, infos, read, kind=kind), found.scalars


def _check_view(path: Path, name: str, tensor: StoredTensor) -> None:
    """A tensor may only show bytes of its own storage, and no element more often than once."""
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride, strict=True))
    count = prod(tensor.shape)
    if not is_addressable(tensor.shape):
        raise UnsafeFile(f"{path}: tensor {name[:80]!r} has the shape {str(tensor.shape)[:60]}, which no file can hold")
    if count > tensor.storage.count or (count > 0 and last >= tensor.storage.count):
        raise UnsafeFile(f"{path}: tensor {name[:80]!r} of shape {tensor.shape} reaches outside its storage")


@dataclass(frozen=True)
class Collected:
    """What a checkpoint's object holds: tensors by dotted name, and numbers and short texts beside them."""

    tensors: dict[str, StoredTensor]
    scalars: dict[str, str]


def collect(root: Any, path: Path) -> Collected:
    """Tensors by dotted name, out of the innermost `state_dict`; scalars (`global_step`, ...) from every level.

    Optimizer states, callbacks and other objects beside the weights are left where they are. UnsafeFile where the
    dictionaries of `path` unfold to more than a model has.
    """
    scalars: dict[str, str] = {}
    visited: set[int] = set()
    while isinstance(root, dict) and id(root) not in visited:
        visited.add(id(root))
        for key, value in root.items():
            if isinstance(key, str) and _is_short(value):
                scalars.setdefault(key, str(value))
        inner = root.get("state_dict")
        if not isinstance(inner, dict):
            break
        root = inner
    return Collected(_flatten(root, path), scalars)


def _is_short(value: Any) -> bool:
    """Whether a value is a number or text worth keeping; Python refuses to write integers of thousands of digits."""
    if isinstance(value, int):
        return value.bit_length() <= 128
    return isinstance(value, float) or (isinstance(value, str) and len(value) <= 4096)


PAIR = 2
"""Most items of a tuple whose tensors are read."""


def _flatten(root: Any, path: Path) -> dict[str, StoredTensor]:
    """The tensors of nested dictionaries under dotted names; six levels cover every known layout."""
    tensors: dict[str, StoredTensor] = {}
    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    visits = 0
    while waiting:
        prefix, value, depth = waiting.pop()
        if isinstance(value, Inert) and value.type == PARAMETERS and isinstance(value.state, dict):
            value = value.state.get("_parameters")
        if isinstance(value, StoredTensor):
            tensors[prefix] = value
        elif type(value) is tuple and len(value) <= PAIR and depth < 6:  # a hypernetwork has its layers so
            waiting += [(f"{prefix}.{index}", item, depth + 1) for index, item in reversed(list(enumerate(value)))]
        elif isinstance(value, dict) and depth < 6:
            visits += len(value)
            if visits > VISIT_LIMIT:
                raise UnsafeFile(f"{path} has dictionaries that unfold to more than {VISIT_LIMIT} values")
            named = [(str(key), item) for key, item in value.items() if not isinstance(key, int) or _is_short(key)]
            inside = [(name, item) for name, item in named if not name.startswith("optimizer")]
            waiting += [(f"{prefix}.{name}" if prefix else name, item, depth + 1) for name, item in reversed(inside)]
    return tensors
