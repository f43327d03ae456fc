"""T2I-Adapter: a small network that turns a picture into features for each stage of the U-Net, once per picture.

Source: Mou et al. 2023, "T2I-Adapter: learning adapters to dig out more controllable ability for text-to-image
diffusion models" (section 3.3; the light form is that of its appendix, the XL form that of the released SDXL adapters).

Shapes: B batch, K channels of the picture, H W its height and width, f the factor by which it is unshuffled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from .config import ModelConfig

Kind = Literal["full", "full XL", "light"]


@dataclass(frozen=True, kw_only=True)
class T2IAdapterConfig(ModelConfig):
    """Shape of an adapter; the defaults are the full adapter's of Stable Diffusion 1.x.

    Features halve from stage to stage, but in the kind "full XL" from the second to the third stage only. `light` has
    thinner blocks, a quarter of each stage's channels wide.
    """

    kind: Kind = "full"
    picture_channels: int = 3
    factor: int = 8
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks_per_stage: int = 2

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 4:
            raise InvalidRequest(f"channels is {self.channels}; expected at least 4 in every stage")

    def stages(self) -> list[tuple[int, int, bool]]:
        """(channels in, channels out, whether it begins by halving) of each stage."""
        found, before = [], self.picture_channels * self.factor**2 if self.kind == "light" else self.channels[0]
        for index, channels in enumerate(self.channels):
            found.append((before, channels, index == 2 if self.kind == "full XL" else index > 0))
            before = channels
        return found


class Block(nn.Module):
    """conv 3x3, ReLU, conv (1x1, or 3x3 in the light form), added to the input."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return out


class AdapterStage(nn.Module):
    """Halving, a 1x1 convolution where the width changes, blocks; in the light form thin blocks and a way back."""

    def __init__(self, config: T2IAdapterConfig, channels_in: int, channels_out: int, halve: bool) -> None:
        super().__init__()
        light = config.kind == "light"
        width = channels_out // 4 if light else channels_out
        self.halve = halve
        self.conv_in = nn.Conv2d(channels_in, width, 1) if light or channels_in != channels_out else None
        self.blocks = nn.Sequential(*(Block(width, 3 if light else 1) for _ in range(config.blocks_per_stage)))
        self.conv_out = nn.Conv2d(width, channels_out, 1) if light else None

    def forward(self, x: Tensor) -> Tensor:
        if self.halve:  # an odd side is rounded up, as by the U-Net's downsampling
            x = F.avg_pool2d(x, 2, 2, ceil_mode=True)
        x = self.blocks(x if self.conv_in is None else self.conv_in(x))
        return x if self.conv_out is None else self.conv_out(x)


class T2IAdapter(nn.Module):
    """A picture to one feature map per stage."""

    def __init__(self, config: T2IAdapterConfig) -> None:
        super().__init__()
        self.config = config
        unshuffled = config.picture_channels * config.factor**2
        self.conv_in = None if config.kind == "light" else nn.Conv2d(unshuffled, config.channels[0], 3, padding=1)
        self.stages = nn.ModuleList(AdapterStage(config, *plan) for plan in config.stages())

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """picture [B,K,H,W] in [0, 1] -> features, finest first; sides are filled up to a multiple of f."""
        height, width = picture.shape[-2:]
        missing = (0, -width % self.config.factor, 0, -height % self.config.factor)
        x = F.pixel_unshuffle(F.pad(picture, missing, mode="replicate"), self.config.factor)
        if self.conv_in is not None:
            x = self.conv_in(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features)
