"""The tensors of one file: a lazy mapping from name to tensor, over bytes mapped into memory.

Nothing is read until a tensor is asked for, and what is asked for is a view of the mapped file where dtype and
alignment allow it. The mapping is private (copy on write): writing to a tensor never changes the file.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ...mapped_pages import remember


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before its bytes are read."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


def is_addressable(shape: Sequence[int]) -> bool:
    """Whether torch can count the elements of a shape, an empty one too: it multiplies all sides, in 64 bits."""
    return prod(max(side, 1) for side in shape) < 2**62


class TensorFile(Mapping[str, Tensor]):
    """Read-only mapping from tensor name to tensor; `info` gives dtype and shape without reading any bytes."""

    def __init__(
        self,
        path: Path,
        infos: dict[str, TensorInfo],
        read: Callable[[str], Tensor],
        kind: str,
        stored: Mapping[str, str] | None = None,
        origins: Mapping[str, Path] | None = None,
        release: Callable[[str], None] | None = None,
    ) -> None:
        """`read` makes the named tensor; `kind` names the container ("safetensors", "torch zip", "torch stream",
        "gguf"); `stored` is how tensors are stored, where that is not their dtype ("Q8_0"); `origins` are the files of
        those that come from another one than `path`; `release` lets go of the memory of a tensor's bytes."""
        self.path = path
        self.kind = kind
        self._origins = {} if origins is None else origins
        self._stored = {} if stored is None else stored
        self._infos = infos
        self._read = read
        self._release = release

    def info(self, name: str) -> TensorInfo:
        return self._infos[name]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor, or None where the file has no such name."""
        found = self._infos.get(name)
        return None if found is None else found.shape

    def stored(self, name: str) -> str:
        """How a tensor is stored: its dtype as torch names it, or a kind of quantisation."""
        return self._stored.get(name, str(self._infos[name].dtype).removeprefix("torch."))

    def origin(self, name: str) -> Path:
        """The file that a tensor is in."""
        return self._origins.get(name, self.path)

    def renamed(self, names: Mapping[str, str]) -> TensorFile:
        """The tensors under other names, {new name: name here}; those not mentioned are left out."""
        infos = {new: self._infos[name] for new, name in names.items()}
        stored = {new: self._stored[name] for new, name in names.items() if name in self._stored}
        origins = {new: self._origins[name] for new, name in names.items() if name in self._origins}
        return TensorFile(
            self.path,
            infos,
            lambda new: self[names[new]],
            self.kind,
            stored,
            origins,
            lambda new: self.release(names[new]),
        )

    def release(self, name: str) -> None:
        """A copy of the tensor was made, and its bytes in the mapped file need no memory any more."""
        if self._release is not None:
            self._release(name)

    def __getitem__(self, name: str) -> Tensor:
        info = self._infos[name]
        tensor = self._read(name)
        assert tensor.shape == info.shape and tensor.dtype == info.dtype, name
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._infos

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)


class MappedBytes:
    """A whole file mapped privately into memory, handed out as tensors."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        if self.size == 0:
            self._map, self._bytes = None, torch.empty(0, dtype=torch.uint8)
            return
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_COPY)
        self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)
        remember(self._bytes, self._map)

    def tensor(self, start: int, dtype: torch.dtype, count: int) -> Tensor:
        """`count` elements of `dtype` from byte `start`: a view, or a copy where `start` is not aligned for `dtype`."""
        stop = start + count * dtype.itemsize
        assert 0 <= start <= stop <= self.size
        if count == 0:
            return torch.empty(0, dtype=dtype)
        piece = self._bytes[start:stop]
        # A mapping begins at a page boundary, so the offset in the file decides the alignment.
        return (piece if start % dtype.itemsize == 0 else piece.clone()).view(dtype)

    def release(self, start: int, nbytes: int) -> None:
        """Let go of the memory of whole pages in a range of bytes; they are read from the file again when used.

        Only for ranges of which nobody holds a tensor that was written to.
        """
        first, stop = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if self._map is not None and stop > first and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, stop - first)
