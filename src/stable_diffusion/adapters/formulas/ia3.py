"""IA3: every row (or column) of a weight is scaled by a learned number.

Source: Liu et al. 2022, "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning"
(section 3.3); LyCORIS stores the distance of the factor from 1.
"""

from __future__ import annotations

from torch import Tensor


def ia3(weight: Tensor, factors: Tensor, *, on_input: bool) -> Tensor:
    """weight [O,I,k..] times factors: one per column [I] where `on_input`, else one per row [O]."""
    shape = (1, -1) if on_input else (-1, 1)
    return weight * factors.reshape(*shape, *[1] * (weight.dim() - 2))
