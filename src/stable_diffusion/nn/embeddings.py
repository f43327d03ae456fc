"""Embeddings of numbers: sinusoids of the timestep and of the guidance scale, and the MLP that follows them.

Sources: Vaswani et al. 2017, section 3.5; Ho et al. 2020, appendix B; Luo et al. 2023, arXiv:2310.04378, section 4.3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def timestep_embedding(timestep: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """[B] (0 to 1000, fractions allowed) -> float32 [B,width]: cosines, then sines, of width // 2 frequencies.

    The frequencies fall geometrically from 1 to (almost) 1 / max_period. Cosines come first, as in the models of
    Dhariwal & Nichol and Stable Diffusion (Vaswani et al. and Ho et al. have the sines first).
    """
    assert width % 2 == 0, f"the embedding width must be even, not {width}"
    half = width // 2
    frequency = torch.exp(
        -math.log(max_period) / half * torch.arange(half, dtype=torch.float32, device=timestep.device)
    )
    angle = timestep.float()[:, None] * frequency[None, :]  # [B, width / 2]
    return torch.cat((angle.cos(), angle.sin()), dim=-1)  # [B, width]


def guidance_embedding(weight: Tensor, width: int) -> Tensor:
    """[B] -> float32 [B,width]: sines, then cosines, of 1000 times the number.

    Unlike those of timesteps the frequencies end on 1 / 10000 itself, as in the code that released models were trained
    with.
    """
    assert width % 2 == 0 and width >= 4, f"the embedding width must be even and at least 4, not {width}"
    half = width // 2
    place = torch.arange(half, dtype=torch.float32, device=weight.device) / (half - 1)
    angle = 1000 * weight.float()[:, None] * torch.exp(-math.log(10_000.0) * place)  # [B, width / 2]
    return torch.cat((angle.sin(), angle.cos()), dim=-1)  # [B, width]


class EmbeddingMLP(nn.Module):
    """linear, SiLU, linear: [B,width_in] -> [B,width_out]."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width_in, width_out)
        self.linear2 = nn.Linear(width_out, width_out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(F.silu(self.linear1(x)))
        return out
