"""A stage at the latents' own grid for a network that works on patches of them.

A network on patches knows what is where, but its few channels cannot carry the noise of every latent, and what it
leaves behind is grain. This stage sees every latent beside its neighbours, where a flat area is easily told from noise,
and what the network said of them; it says what must be added. It is the finest stage of a U-Net (Ronneberger et al.
2015) with the noisy latents themselves as its skip.

Shapes: B batch, c latent channels, C channels of the network's features, H W latent height and width, p patch size, E
width of the time embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import ResBlock, zero_conv
from .patches import unfold


class FineStage(nn.Module):
    """What is to be added to a guess of the output at the latents' grid; it starts at zero.

    latent, guess  channels of the noisy latent and of the guess
    features       C, which must be a multiple of p p
    width, blocks  channels and residual blocks of the stage
    """

    def __init__(
        self,
        latent: int,
        guess: int,
        features: int,
        patch: int,
        *,
        width: int,
        blocks: int,
        time_width: int,
        groups: int,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.conv_in = nn.Conv2d(latent + guess + features // patch**2, width, 3, padding=1)
        block = {"time_width": time_width, "groups": groups, "eps": 1e-5}
        self.resblocks = nn.ModuleList(ResBlock(width, width, **block) for _ in range(blocks))  # type: ignore[arg-type]
        self.norm_out = nn.GroupNorm(groups, width, eps=1e-5)
        self.conv_out = zero_conv(width, guess)

    def forward(self, latent: Tensor, guess: Tensor, features: Tensor, time: Tensor) -> Tensor:
        """latent [B,c,H,W], guess [B,c',H,W], features [B,C,H/p,W/p], time [B,E] after its activation -> [B,c',H,W]."""
        spread = unfold(features, self.patch, *latent.shape[-2:])  # [B, C / (p p), H, W]
        x = self.conv_in(torch.cat((latent, guess.to(latent.dtype), spread), dim=1))
        for block in self.resblocks:
            x = block(x, time)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out
