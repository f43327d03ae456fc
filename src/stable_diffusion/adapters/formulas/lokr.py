"""LoKr: the Kronecker product of a small matrix and a larger one, either of which may be a product of thin ones.

Sources: Edalati et al. 2022, "KronA: Parameter efficient tuning with Kronecker adapter" (section 3); the layout is that
of LyCORIS.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lokr(w1: Tensor, w2: Tensor) -> Tensor:
    """w1 [a,b] and w2 [c,d,k..] -> [a c, b d, k..]."""
    w1 = w1.reshape(*w1.shape, *[1] * (w2.dim() - w1.dim()))
    return torch.kron(w1, w2.contiguous())


def lokr_factor(whole: Tensor | None, a: Tensor | None, b: Tensor | None, core: Tensor | None = None) -> Tensor:
    """One side of the product: as it is, a [c,r] b [r,d,k..], or with a core [r,s,k..] a [r,c] b [s,d]."""
    if whole is not None:
        return whole
    assert a is not None and b is not None
    if core is not None:
        return torch.einsum("rs...,rc,sd->cd...", core, a, b)
    return (a @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:])
