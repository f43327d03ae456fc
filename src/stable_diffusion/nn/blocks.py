"""Convolution blocks shared by the U-Net, the autoencoder and the image tower.

Sources: He et al. 2016, "Identity mappings in deep residual networks"; Ho et al. 2020, "Denoising diffusion
probabilistic models" (appendix B); Dhariwal & Nichol 2021, "Diffusion models beat GANs on image synthesis" (residual
outputs that start at zero).

Shapes: B batch, C channels, H W height and width, E width of the time embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResBlock(nn.Module):
    """norm, SiLU, conv, (+ time), norm, SiLU, conv, added to the input: [B,C_in,H,W] -> [B,C_out,H,W].

    `time_width` None makes a block without time embedding. The last convolution starts at zero, so that a new block is
    the identity (or the 1x1 `skip` where the number of channels changes).
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, time_width: int | None = None, groups: int = 32, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in, eps=eps)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time = None if time_width is None else nn.Linear(time_width, channels_out)
        self.norm2 = nn.GroupNorm(groups, channels_out, eps=eps)
        self.conv2 = zero_conv(channels_out, channels_out)
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """`time` [B,E] is the time embedding after its activation (SiLU), which all blocks share."""
        scrap = not torch.is_grad_enabled()  # what no gradient needs is written over, for less memory
        h = self.conv1(F.silu(self.norm1(x), inplace=scrap))  # [B, C_out, H, W]
        if self.time is not None:
            h = h + self.time(time)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h), inplace=scrap))
        out: Tensor = self.skip(x) + h
        return out


class Downsample(nn.Module):
    """Convolution of stride 2: [B,C,H,W] -> [B,C,ceil(H/2),ceil(W/2)], or floor where `pad_end`.

    The U-Net pads by one on every side; the autoencoder (`pad_end`) by one at the right and at the bottom only.
    """

    def __init__(self, channels: int, *, pad_end: bool = False) -> None:
        super().__init__()
        self.pad_end = pad_end
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if pad_end else 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.pad_end else x)
        return out


class Upsample(nn.Module):
    """Nearest-neighbour upsampling and a convolution: [B,C,H,W] -> [B,C,2H,2W], or to `size` (height, width)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        height, width = (2 * x.shape[-2], 2 * x.shape[-1]) if size is None else size
        out: Tensor = self.conv(F.interpolate(x, size=(height, width), mode="nearest"))
        return out


def zero_conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3x3 convolution that starts at zero."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
