"""A small image encoder: the other half of contrastive training, and the eye that evaluates pictures.

Sources: Radford et al. 2021, "Learning transferable visual models from natural language supervision" (section 2.3: the
convolutional tower). The blocks are those of the autoencoder, so that nothing new has to be understood.

Shapes: B batch, H W picture height and width, C channels, h w height and width of the feature map, P embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from ..nn.blocks import Downsample, ResBlock
from .config import ModelConfig, check_divisible


@dataclass(frozen=True, kw_only=True)
class ImageTowerConfig(ModelConfig):
    """Shape of an image tower. Stages run from the finest to the coarsest, each half the size of the one before."""

    image_channels: int = 4
    channels: tuple[int, ...] = (32, 64, 128, 256)
    blocks_per_stage: int = 1
    patch_size: int = 2
    projection_dim: int = 256
    groups: int = 8

    def __post_init__(self) -> None:
        if not self.channels:
            raise InvalidRequest("channels is empty; an image tower needs at least one stage")
        for channels in self.channels:
            check_divisible("channels", channels, self.groups, "the number of groups of a norm")

    @property
    def downscale(self) -> int:
        """Pixels per feature, along one side."""
        return int(self.patch_size * 2 ** (len(self.channels) - 1))


class ImageFeatures(NamedTuple):
    """`embedding` [B,P]: the picture as one vector, not normalised; `features` [B,C,h,w]: the map it is pooled from."""

    embedding: Tensor
    features: Tensor


class ImageTower(nn.Module):
    """Pictures to one vector each."""

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_in = nn.Conv2d(config.image_channels * config.patch_size**2, config.channels[0], 3, padding=1)
        self.stages = nn.Sequential(*(self._stage(index) for index in range(len(config.channels))))
        self.norm_out = nn.GroupNorm(config.groups, config.channels[-1], eps=1e-6)
        self.projection = nn.Linear(config.channels[-1], config.projection_dim)

    def _stage(self, index: int) -> nn.Sequential:
        """A downsampling (but for the first stage), then residual blocks, the first of which widens."""
        config = self.config
        before, width = config.channels[max(index - 1, 0)], config.channels[index]
        layers: list[nn.Module] = [Downsample(before)] if index else []
        for block in range(config.blocks_per_stage):
            layers.append(ResBlock(before if block == 0 else width, width, groups=config.groups))
        return nn.Sequential(*layers)

    def forward(self, image: Tensor) -> ImageFeatures:
        """[B,4,H,W] in [-1, 1], premultiplied RGBA -> ImageFeatures; H and W must be multiples of `patch_size`."""
        x = F.pixel_unshuffle(image, self.config.patch_size)  # [B, 4 p p, H / p, W / p]
        features = F.silu(self.norm_out(self.stages(self.conv_in(x))))  # [B, C, h, w]
        return ImageFeatures(self.projection(features.mean(dim=(2, 3))), features)
