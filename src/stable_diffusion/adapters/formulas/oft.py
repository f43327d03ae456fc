"""OFT: blocks of rows of a weight are rotated, which keeps the angles between the neurons of a block.

Source: Qiu et al. 2023, "Controlling text-to-image diffusion by orthogonal finetuning" (section 3.2: the Cayley
transform; section 3.3: block-diagonal rotations; COFT: the constraint). The layout is that of sd-scripts and LyCORIS.

Shapes: n blocks of size b, n b = O rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cayley(blocks: Tensor, limit: float | None = None) -> Tensor:
    """blocks [..,b,b] -> as many rotations (I + Q)(I - Q)^-1 with Q = blocks - blocks^T.

    The norm of all Q together is scaled down to `limit` where it is larger.
    """
    q = blocks - blocks.transpose(-1, -2)
    if limit is not None and limit > 0:
        q = q * (limit / (q.norm() + 1e-8)).clamp(max=1.0)
    identity = torch.eye(blocks.shape[-1], device=blocks.device, dtype=blocks.dtype)
    rotations: Tensor = (identity + q) @ torch.linalg.inv(identity - q)
    return rotations


def oft(weight: Tensor, blocks: Tensor, *, limit: float | None = None, rescale: Tensor | None = None) -> Tensor:
    """Difference of weight [O,I,k..] rotated by blocks [n,b,b] (and its rows then scaled by rescale [O,1..])."""
    rotations = cayley(blocks, limit)
    split = weight.reshape(*blocks.shape[:2], -1)  # [n, b, I k]
    turned = torch.einsum("knm,kni->kmi", rotations, split).reshape(weight.shape)
    return rescaled(turned, rescale) - weight


def rescaled(weight: Tensor, factors: Tensor | None) -> Tensor:
    """Rows of weight [O,..] times factors [O,1..]."""
    return weight if factors is None else weight * factors.reshape(-1, *[1] * (weight.dim() - 1))
