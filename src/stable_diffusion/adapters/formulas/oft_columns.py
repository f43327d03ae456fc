"""OFT as PEFT has it: blocks of columns of a weight are rotated, so that the layer sees a rotated input.

Sources: Qiu et al. 2023, "Controlling text-to-image diffusion by orthogonal finetuning" (section 3.2; COFT: the
constraint); Qiu et al. 2025, "Orthogonal finetuning made scalable" (section 4: only the upper triangle of each
skew-symmetric block is stored, and the inverse of the Cayley transform is a Neumann series that is cut off).

Shapes: n blocks of size b, n b = I k.. columns, or one block for all; a block is stored as e = b (b - 1) / 2 numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import BrokenModel

TERMS = 5
"""Terms of the series where an adapter does not say."""


def oft_columns(weight: Tensor, triangles: Tensor, *, terms: int = TERMS, limit: float | None = None) -> Tensor:
    """Difference of weight [O,I,k..] whose columns are rotated by triangles [n,e] or [1,e], which all blocks share.

    terms   of the Neumann series, 0 for the exact transform (which turns the other way round, as theirs does)
    limit   largest norm of a block times sqrt(n), where the adapter is constrained
    BrokenModel where the blocks are no part of the columns.
    """
    columns = math.prod(weight.shape[1:])
    size = (1 + math.isqrt(1 + 8 * triangles.shape[-1])) // 2
    if triangles.dim() != 2 or size * (size - 1) // 2 != triangles.shape[1] or columns % size:
        raise BrokenModel(f"its rotations {list(triangles.shape)} do not fit a weight {list(weight.shape)}")
    if triangles.shape[0] not in (1, columns // size):
        raise BrokenModel(f"it has {triangles.shape[0]} rotations of {size} columns, the weight has {columns} columns")
    q = _skew(triangles, size)  # [n, b, b]
    if limit is not None and limit > 0:
        norm = torch.linalg.matrix_norm(q, keepdim=True)
        most = limit / math.sqrt(triangles.shape[0])
        q = torch.where(norm <= most, q, q * (most / norm))
    rotations = series(q, terms) if terms else _exact(q)
    blocks = weight.reshape(weight.shape[0], columns // size, size)  # [O, n, b]
    turned = torch.einsum("onk,nck->onc", blocks, rotations.expand(columns // size, size, size))
    return turned.reshape(weight.shape) - weight


def series(q: Tensor, terms: int) -> Tensor:
    """q [n,b,b] -> I + 2 Q + 2 Q^2 + ... + Q^last, a cut-off (I + Q)(I - Q)^-1; the last power is terms - 1, or 3."""
    rotations = torch.eye(q.shape[-1], device=q.device, dtype=q.dtype).expand_as(q)
    power = q
    if terms > 1:
        rotations = rotations + 2 * power
    if terms > 2:
        for _ in range(2, max(terms - 1, 3)):
            power = power @ q
            rotations = rotations + 2 * power
        rotations = rotations + power @ q
    return rotations


def _skew(triangles: Tensor, size: int) -> Tensor:
    """[n,e] -> [n,b,b], the numbers above the diagonal and their opposites below it."""
    rows, columns = torch.triu_indices(size, size, 1, device=triangles.device)
    upper = triangles.new_zeros(triangles.shape[0], size, size)
    upper[:, rows, columns] = triangles
    return upper - upper.transpose(-1, -2)


def _exact(q: Tensor) -> Tensor:
    """(I - Q)(I + Q)^-1."""
    identity = torch.eye(q.shape[-1], device=q.device, dtype=q.dtype)
    rotations: Tensor = (identity - q) @ torch.linalg.inv(identity + q)
    return rotations
