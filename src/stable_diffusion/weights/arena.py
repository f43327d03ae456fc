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

    def cast(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """A copy of the tensor in `dtype`, contiguous; outside of the block where that is full."""
        size = tensor.numel() * dtype.itemsize
        start = self._used
        if size == 0 or start + size > len(self._bytes):
            return tensor.to(dtype, copy=True).contiguous()
        self._used = start + -(-size // ALIGNED) * ALIGNED
        made = self._bytes[start : start + size].view(dtype).view(tensor.shape)
        return made.copy_(tensor)


def room_for(tensors: list[Tensor], dtype: torch.dtype) -> int:
    """Bytes that copies of these tensors take in `dtype`."""
    return sum(-(-tensor.numel() * dtype.itemsize // ALIGNED) * ALIGNED for tensor in tensors)
