"""GLoRA: a LoRA, and a second one that sees the input through the weight itself.

Source: Chavan et al. 2023, "One-for-all: Generalized LoRA for parameter-efficient fine-tuning" (equation 10, with the
parts A and B); the layout is that of LyCORIS, which changed the order of its factors once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .lora import lora


def glora(weight: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor, core: Tensor | None = None) -> Tensor:
    """W A + B for weight [O,I,k..]: A = a1 a2 [I,I], B = b1 b2 [O,I,k..].

    a1 [I,r] a2 [r,I] b1 [O,r] b2 [r,I,k..] today; before LyCORIS 2 the two of each pair were the other way round.
    """
    if not (b1.shape[0] == weight.shape[0] and b1.shape[1] == b2.shape[0]):
        a1, a2, b1, b2 = a2, a1, b2, b1
    through = torch.einsum("oi...,ir,rj->oj...", weight, a1.flatten(1), a2.flatten(1))
    return through + lora(b1, b2, core).reshape(weight.shape)
