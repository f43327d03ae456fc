"""DoRA: the changed weight keeps only its direction, and every row (or column) gets a learned length.

Source: Liu et al. 2024, "DoRA: Weight-decomposed low-rank adaptation" (equation 5). The paper and PEFT learn one length
per output row; LyCORIS has one per input column too. It goes on top of LoRA, LoHa and LoKr alike.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dora(weight: Tensor, delta: Tensor, magnitude: Tensor, *, rows: bool) -> Tensor:
    """Difference magnitude * V / |V| - weight, with V = weight + delta, both [O,I,k..].

    Norms are over each of the O rows where `rows`, else over each of the I columns; magnitude has as many elements.
    """
    changed = weight + delta
    axis = 0 if rows else 1
    others = [dim for dim in range(changed.dim()) if dim != axis]
    norm = torch.linalg.vector_norm(changed, dim=others, keepdim=True) + torch.finfo(changed.dtype).eps
    difference: Tensor = changed * (magnitude.reshape(norm.shape) / norm) - weight
    return difference
