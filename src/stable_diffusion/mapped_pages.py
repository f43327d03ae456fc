"""Memory of tensors that are views of mapped files, which can be let go of: the file has the same bytes.

Whoever maps a file says so with `remember`, and `release` gives the memory of such tensors back to the system; they
are read from the file again when something uses them. Pages that were written to (a private mapping keeps them in
memory) are never let go of.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

_MAPS: dict[int, tuple[int, weakref.ref[mmap.mmap]]] = {}
_LOCK = threading.Lock()


def remember(bytes_of: Tensor, mapped: mmap.mmap) -> None:
    """`bytes_of` is all of a file, mapped privately."""
    start = bytes_of.data_ptr()
    with _LOCK:
        for each in [each for each, (_, known) in _MAPS.items() if known() is None]:
            del _MAPS[each]
        _MAPS[start] = (bytes_of.nbytes, weakref.ref(mapped))


def is_mapped(tensor: Tensor) -> bool:
    """Whether a tensor is a view of a mapped file."""
    return _home(tensor) is not None


def release(tensors: Iterable[Tensor]) -> int:
    """Let go of the memory of those tensors that are views of mapped files; how many bytes those have.

    Nothing is done on systems without `madvise`, or that do not say what was written to (all but Linux).
    """
    if not hasattr(mmap, "MADV_DONTNEED"):
        return 0
    released, untouched = 0, dict[int, bool]()
    for tensor in tensors:
        home = _home(tensor)
        if home is None:
            continue
        start, mapped = home
        if start not in untouched:
            untouched[start] = not _written_to(start)
        if untouched[start]:
            at = tensor.data_ptr() - start
            first = -(-at // mmap.PAGESIZE) * mmap.PAGESIZE
            stop = (at + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
            if stop > first:
                mapped.madvise(mmap.MADV_DONTNEED, first, stop - first)
            released += tensor.nbytes
    return released


def _home(tensor: Tensor) -> tuple[int, mmap.mmap] | None:
    """Where the file begins in memory that a tensor is a view of, and its mapping."""
    if tensor.device.type != "cpu" or not tensor.nbytes:
        return None
    start = tensor.untyped_storage().data_ptr()
    size, known = _MAPS.get(start, (0, None))
    mapped = None if known is None else known()
    inside = start <= tensor.data_ptr() and tensor.data_ptr() + tensor.nbytes <= start + size
    dense = tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    return (start, mapped) if mapped is not None and inside and dense else None


def _written_to(start: int) -> bool:
    """Whether any page of the mapping at an address is the process's own; true where the system does not say."""
    try:
        lines = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    here = False
    for line in lines:
        word = line.split(None, 1)[0]
        if "-" in word and not word.endswith(":"):
            here = int(word.split("-")[0], 16) == start
        elif here and word == "Anonymous:":
            return int(line.split()[1]) > 0
    return True
