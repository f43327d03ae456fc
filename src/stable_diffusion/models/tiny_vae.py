"""A tiny autoencoder that stands in for the large one: pictures in a hundredth of its time, with less detail.

Source: Bohan 2023, "TAESD" (github.com/madebyollin/taesd): convolutions and residual blocks with ReLU, no norms, no
attention. It was trained on latents of unit scale, so that `latents` of a model that uses it have scale 1 and shift 0.

Shapes: B batch, C channels, H W picture height and width, c h w latent channels, height and width.
Pictures are in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from .config import ModelConfig
from .vae import Gaussian

BOUND = 3.0
"""Latents are bent into (-3, 3) before they are decoded, as in training."""


@dataclass(frozen=True, kw_only=True)
class TinyVAEConfig(ModelConfig):
    """Shape of a tiny autoencoder; the defaults are TAESD's.

    `encoder_blocks` and `decoder_blocks` are the residual blocks of each stage in the order in which they run; the
    encoder is left out where `encoder_blocks` is empty.
    """

    image_channels: int = 3
    latent_channels: int = 4
    width: int = 64
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)

    def __post_init__(self) -> None:
        if not self.decoder_blocks or min((*self.decoder_blocks, *self.encoder_blocks)) < 0:
            raise InvalidRequest(
                f"encoder_blocks are {self.encoder_blocks} and decoder_blocks {self.decoder_blocks}; "
                "expected at least one stage, none with less than 0 blocks"
            )
        if self.encoder_blocks and len(self.encoder_blocks) != len(self.decoder_blocks):
            raise InvalidRequest(
                f"the encoder has {len(self.encoder_blocks)} stages and the decoder {len(self.decoder_blocks)}; "
                "expected as many"
            )

    @property
    def downscale(self) -> int:
        """Pixels per latent, along one side."""
        return int(2 ** (len(self.decoder_blocks) - 1))


class TinyBlock(nn.Module):
    """Three convolutions with ReLU between them, added to the input, and a ReLU: [B,C,H,W] -> [B,C,H,W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(h + x)


class TinyEncoder(nn.Module):
    """Picture [B,C,H,W] in [0, 1] -> latent [B,c,h,w]."""

    def __init__(self, config: TinyVAEConfig) -> None:
        super().__init__()
        width = config.width
        self.conv_in = nn.Conv2d(config.image_channels, width, 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(TinyBlock(width) for _ in range(blocks))) for blocks in config.encoder_blocks
        )
        self.downsamples = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False) for _ in config.encoder_blocks[1:]
        )
        self.conv_out = nn.Conv2d(width, config.latent_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stages[0](self.conv_in(image))
        for downsample, stage in zip(self.downsamples, self.stages[1:], strict=True):
            x = stage(downsample(x))
        out: Tensor = self.conv_out(x)  # [B, c, h, w]
        return out


class TinyDecoder(nn.Module):
    """Latent [B,c,h,w] -> picture [B,C,H,W], about [0, 1]."""

    def __init__(self, config: TinyVAEConfig) -> None:
        super().__init__()
        width = config.width
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(TinyBlock(width) for _ in range(blocks))) for blocks in config.decoder_blocks
        )
        self.upsamples = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in config.decoder_blocks[1:]
        )
        self.conv_out = nn.Conv2d(width, config.image_channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = F.relu(self.conv_in(torch.tanh(latent / BOUND) * BOUND))
        x = self.stages[0](x)
        for upsample, stage in zip(self.upsamples, self.stages[1:], strict=True):
            x = stage(upsample(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        out: Tensor = self.conv_out(x)  # [B, C, H, W]
        return out


class TinyVAE(nn.Module):
    """Encoder and decoder with the signatures of `VAE`; latents are of unit scale, and certain."""

    def __init__(self, config: TinyVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TinyEncoder(config) if config.encoder_blocks else None
        self.decoder = TinyDecoder(config)

    @property
    def downscale(self) -> int:
        """Pixels per latent, along one side."""
        return self.config.downscale

    def encode(self, image: Tensor) -> Gaussian:
        """[B,C,H,W] in [-1, 1] -> the latent [B,c,H/downscale,W/downscale], as a distribution without spread.

        InvalidRequest where there is no encoder, or height or width is not a multiple of `downscale`.
        """
        height, width = image.shape[-2:]
        if self.encoder is None:
            raise InvalidRequest("this tiny autoencoder has a decoder only; give the file of a whole one")
        if height % self.downscale or width % self.downscale:
            raise InvalidRequest(
                f"the picture is {width}x{height}; width and height must be multiples of {self.downscale}"
            )
        mean = self.encoder((image + 1) / 2)  # [B, c, h, w]
        return Gaussian(mean, torch.full_like(mean, -torch.inf))

    def decode(self, latent: Tensor) -> Tensor:
        """[B,c,h,w] -> picture [B,C,h*downscale,w*downscale], about [-1, 1], not clamped."""
        out: Tensor = self.decoder(latent) * 2 - 1
        return out
