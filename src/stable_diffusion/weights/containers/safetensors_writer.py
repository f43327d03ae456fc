"""Writer of .safetensors files that leaves either the whole new file or what was there before.

The bytes depend on the tensors and the metadata alone, so equal models give equal files.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ...errors import ModelFileError
from .packing import narrowed
from .safetensors_reader import DTYPE_NAMES, HEADER_LIMIT


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


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` once it is complete and on the disk, and vanishes on any error."""
    path = Path(path)
    # In the same folder, since a rename is atomic only within a file system.
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(6)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ModelFileError(f"{path} could not be written ({error.strerror or error}); nothing was changed") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; systems that cannot open folders (Windows) do without."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
