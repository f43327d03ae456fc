"""LoHa: the elementwise product of two LoRAs, whose rank is the product of theirs.

Sources: Hyeon-Woo et al. 2022, "FedPara: Low-rank Hadamard product for communication-efficient federated learning"
(proposition 2; proposition 3 for convolutions); the layout is that of LyCORIS.
"""

from __future__ import annotations

import torch
from torch import Tensor


def loha(
    w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor, t1: Tensor | None = None, t2: Tensor | None = None
) -> Tensor:
    """(w1_a w1_b) * (w2_a w2_b) for w_a [O,r] and w_b [r,I k]; with cores t [r,r,k..]: w_a [r,O], w_b [r,I]."""
    if t1 is not None and t2 is not None:
        return _tucker(t1, w1_a, w1_b) * _tucker(t2, w2_a, w2_b)
    first, second = w1_a @ w1_b.flatten(1), w2_a @ w2_b.flatten(1)  # [O, I k]
    return (first * second).reshape(w1_a.shape[0], *w1_b.shape[1:])


def _tucker(core: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """core [r,s,k..], rows [r,O], columns [s,I] -> [O,I,k..]."""
    return torch.einsum("rs...,ro,si->oi...", core, rows, columns)
