"""LoRA: the difference of two weights as a product of two thin matrices.

Sources: Hu et al. 2021, "LoRA: Low-rank adaptation of large language models" (section 4.1); for convolutions LyCORIS
(Yeh et al. 2023, "Navigating text-to-image customization", section 3), where the first factor has the kernel, or both
factors are 1x1 and a core tensor between them has it (a Tucker decomposition of order 2).

Shapes: O rows, I columns, r rank, k the kernel (nothing for a matrix).
"""

from __future__ import annotations

import torch
from torch import Tensor


def lora(up: Tensor, down: Tensor, mid: Tensor | None = None) -> Tensor:
    """up [O,r,1..] and down [r,I,k..] -> [O,I,k..]; with a core mid [r,r,k..] it is down [r,I,1..]."""
    if mid is not None:
        return torch.einsum("os,st...,ti->oi...", up.flatten(1), mid, down.flatten(1))
    delta = up.flatten(1) @ down.flatten(1)  # [O, I k]
    return delta.reshape(up.shape[0], *down.shape[1:])
