"""BOFT: OFT in several stages, between which rows are shuffled as in a fast Fourier transform, so that all rows meet.

Source: Liu et al. 2024, "Parameter-efficient orthogonal finetuning via butterfly factorization" (section 4). The layout
is that of LyCORIS.

Shapes: m stages of n blocks of size b, n b = O rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .oft import cayley, rescaled


def boft(weight: Tensor, blocks: Tensor, *, limit: float | None = None, rescale: Tensor | None = None) -> Tensor:
    """Difference of weight [O,I,k..] after the stages of blocks [m,n,b,b]."""
    stages, _, size, _ = blocks.shape
    rotations = cayley(blocks, limit)
    rows = weight.flatten(1)  # [O, I k]
    for stage in range(stages):
        # In stage i rows that are 2^i half blocks apart come to lie side by side.
        apart = 2**stage * (size // 2)
        mixed = rows.reshape(-1, 2, apart, rows.shape[1]).transpose(1, 2).reshape(-1, size, rows.shape[1])
        turned = torch.einsum("kij,kjc->kic", rotations[stage], mixed)
        rows = turned.reshape(-1, apart, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)
    return rescaled(rows.reshape(weight.shape), rescale) - weight
