"""One block of memory for the weights of a network that are cast while they are loaded.

Fresh memory is given page by page, which for the 4 KiB pages of most systems takes longer than casting weights into it.
A block can be asked for in huge pages (Linux), and so costs a hundredth of the page faults.
"""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

ALIGNED = 64
"""Bytes: a cache line, which is also the widest vector of a CPU."""


PIECE = 2**18
"""Numbers that are cast at once: a megabyte of float32."""
_HALVES = {torch.float16, torch.bfloat16}


class Arena:
    """Room for tensors of `nbytes` in all, which are views of it; room that is not used costs nothing."""

    def __init__(self, nbytes: int) -> None:
        block = mmap.mmap(-1, max(nbytes, 1))
        if hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                block.madvise(mmap.MADV_HUGEPAGE)
            except OSError:  # a kernel without them: small pages, then
                pass
        self._bytes, self._used = torch.frombuffer(block, dtype=torch.uint8), 0
        self._wide, self._scratch = torch.empty(PIECE), torch.empty(0)

    def clear(self) -> None:
        """Use the room once more: what was cast so far is overwritten."""
        self._used = 0

    def cast(self, tensor: Tensor, dtype: torch.dtype, *, channels_last: bool = False) -> Tensor:
        """A copy of the tensor in `dtype`, contiguous, or a convolution's weight [O,I,h,w] in channels_last; outside of
        the block where that is full."""
        size = tensor.numel() * dtype.itemsize
        start = self._used
        if size == 0 or start + size > len(self._bytes):
            return tensor.to(dtype, copy=True).contiguous()
        self._used = start + -(-size // ALIGNED) * ALIGNED
        made = self._bytes[start : start + size].view(dtype)
        if not channels_last:
            return self._cast(tensor, made).view(tensor.shape)
        out, into, height, width = tensor.shape
        ordered = made.view(out, height, width, into).permute(0, 3, 1, 2)
        return ordered.copy_(self._cast(tensor, self._room(dtype, tensor.numel())).view(tensor.shape))

    def _cast(self, tensor: Tensor, made: Tensor) -> Tensor:
        """The numbers of a tensor, in their order, into `made` of as many elements and another dtype.

        Between two kinds of half precision torch goes number by number; by way of float32, in pieces that stay in the
        processor's cache, it takes half the time and gives the same bits.
        """
        if not tensor.is_contiguous() or {tensor.dtype, made.dtype} != _HALVES:
            return made.view(tensor.shape).copy_(tensor)
        flat = tensor.view(-1)
        for start in range(0, len(flat), PIECE):
            piece = flat[start : start + PIECE]
            made[start : start + PIECE].copy_(self._wide[: len(piece)].copy_(piece))
        return made

    def _room(self, dtype: torch.dtype, count: int) -> Tensor:
        """Scratch memory, which stays for the next tensor."""
        if self._scratch.numel() < count or self._scratch.dtype != dtype:
            self._scratch = torch.empty(count, dtype=dtype)
        return self._scratch[:count]


def room_for(tensors: list[Tensor], dtype: torch.dtype) -> int:
    """Bytes that copies of these tensors take in `dtype`."""
    return sum(-(-tensor.numel() * dtype.itemsize // ALIGNED) * ALIGNED for tensor in tensors)
