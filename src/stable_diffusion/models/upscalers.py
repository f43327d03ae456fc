"""Networks that enlarge finished pictures: RRDBNet (ESRGAN, Real-ESRGAN) and the compact one of Real-ESRGAN.

Sources: Wang et al. 2018, "ESRGAN" (arXiv:1809.00219); Wang et al. 2021, "Real-ESRGAN" (arXiv:2107.10833), whose
networks for 2x and 1x first turn squares of pixels into channels, and whose small network (SRVGGNetCompact) works at
the size of the input and makes pixels of channels at the end.

Shapes: B batch, C channels, H W picture height and width, s the factor. Pictures are in [0, 1], answers about so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from .config import ModelConfig

SLOPE, RESIDUAL = 0.2, 0.2
"""Of the leaky ReLU, and how much of a block is added to its input."""


@dataclass(frozen=True, kw_only=True)
class RRDBConfig(ModelConfig):
    """Shape of an RRDBNet; the defaults are those of the 4x files of ESRGAN.

    doublings   times that the features are doubled in size
    unshuffle   side of the squares of pixels that become channels first; 1 for none
    """

    in_channels: int = 3
    out_channels: int = 3
    width: int = 64
    growth: int = 32
    blocks: int = 23
    doublings: int = 2
    unshuffle: int = 1

    def __post_init__(self) -> None:
        if min(self.in_channels, self.out_channels, self.width, self.growth, self.blocks, self.unshuffle) < 1:
            raise InvalidRequest(f"{self} has a number below 1; expected whole numbers from 1")
        if self.doublings < 0 or 2**self.doublings % self.unshuffle:
            raise InvalidRequest(
                f"doublings is {self.doublings} and unshuffle {self.unshuffle}; the picture would shrink"
            )

    @property
    def scale(self) -> int:
        """By how much pictures grow, along one side."""
        return int(2**self.doublings) // self.unshuffle


@dataclass(frozen=True, kw_only=True)
class CompactConfig(ModelConfig):
    """Shape of Real-ESRGAN's compact network; the defaults are those of its file for videos of anime."""

    in_channels: int = 3
    out_channels: int = 3
    width: int = 64
    layers: int = 16
    scale: int = 4

    def __post_init__(self) -> None:
        if min(self.in_channels, self.out_channels, self.width, self.layers + 1, self.scale) < 1:
            raise InvalidRequest(f"{self} has a number below its least; expected whole numbers from 1")
        if self.out_channels not in (1, self.in_channels) and self.in_channels != 1:
            raise InvalidRequest(f"{self} adds {self.in_channels} channels to {self.out_channels}; expected as many")


def _conv(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all before it, added to the input: [B,C,H,W] -> [B,C,H,W]."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(width + n * growth, growth if n < 4 else width) for n in range(5))

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in self.convs[:-1]:
            seen = torch.cat([seen, F.leaky_relu(conv(seen), SLOPE)], dim=1)
        out: Tensor = self.convs[-1](seen) * RESIDUAL + x
        return out


class RRDB(nn.Module):
    """A residual of three dense blocks."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList(DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for block in self.dense:
            h = block(h)
        return h * RESIDUAL + x


class RRDBNet(nn.Module):
    """ESRGAN's network: [B,C,H,W] -> [B,C,H*s,W*s]."""

    def __init__(self, config: RRDBConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv_in = _conv(config.in_channels * config.unshuffle**2, width)
        self.body = nn.ModuleList(RRDB(width, config.growth) for _ in range(config.blocks))
        self.conv_body = _conv(width, width)
        self.ups = nn.ModuleList(_conv(width, width) for _ in range(config.doublings))
        self.conv_high = _conv(width, width)
        self.conv_out = _conv(width, config.out_channels)

    @property
    def scale(self) -> int:
        """By how much pictures grow, along one side."""
        return self.config.scale

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        side = self.config.unshuffle
        if side > 1:
            down, right = -height % side, -width % side
            image = F.pad(image, (0, right, 0, down), mode="reflect" if min(height, width) > side else "replicate")
            image = F.pixel_unshuffle(image, side)
        x = self.conv_in(image)
        h = x
        for block in self.body:
            h = block(h)
        x = x + self.conv_body(h)
        for up in self.ups:
            x = F.leaky_relu(up(F.interpolate(x, scale_factor=2.0, mode="nearest")), SLOPE)
        out: Tensor = self.conv_out(F.leaky_relu(self.conv_high(x), SLOPE))
        return out[..., : height * self.scale, : width * self.scale]


class CompactNet(nn.Module):
    """Real-ESRGAN's compact network: [B,C,H,W] -> [B,C,H*s,W*s], as a change of the picture enlarged by repetition."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.convs = nn.ModuleList(
            _conv(config.in_channels if n == 0 else width, width) for n in range(config.layers + 1)
        )
        self.slopes = nn.ModuleList(nn.PReLU(width) for _ in range(config.layers + 1))
        self.conv_out = _conv(width, config.out_channels * config.scale**2)

    @property
    def scale(self) -> int:
        """By how much pictures grow, along one side."""
        return self.config.scale

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for conv, slope in zip(self.convs, self.slopes, strict=True):
            x = slope(conv(x))
        change: Tensor = F.pixel_shuffle(self.conv_out(x), self.scale)
        return change + F.interpolate(image, scale_factor=float(self.scale), mode="nearest")
