"""The variational autoencoder between pictures and latents.

Sources: Kingma & Welling 2014, "Auto-encoding variational Bayes" (equation 10: the KL term); Esser et al. 2021, "Taming
transformers" (the convolutional encoder and decoder); Rombach et al. 2022, "High-resolution image synthesis with latent
diffusion models" (the KL-regularised latent, appendix G).

Shapes: B batch, C channels, H W picture height and width, c h w latent channels, height and width, p patch size.
Pictures are in [-1, 1]; RGBA ones have premultiplied colour, and alpha mapped to [-1, 1] like the colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from ..nn.attention import Attention
from ..nn.blocks import Downsample, ResBlock, Upsample
from .config import ModelConfig, check_divisible


@dataclass(frozen=True, kw_only=True)
class VAEConfig(ModelConfig):
    """Shape of an autoencoder; the defaults are Stable Diffusion 1.x and 2.x.

    Stages run from the finest resolution to the coarsest, each half the size of the one before. `decoder_channels` and
    `decoder_blocks` default to `channels` and `blocks_per_stage` + 1. `patch_size` p moves p x p pixels into channels
    at the picture's side, so that a small model need not compute at full resolution. `quant_conv` adds a 1x1
    convolution on both sides of the latent.
    """

    image_channels: int = 3
    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    decoder_channels: tuple[int, ...] | None = None
    blocks_per_stage: int = 2
    decoder_blocks: int | None = None
    mid_attention: bool = True
    quant_conv: bool = True
    patch_size: int = 1
    groups: int = 32

    def __post_init__(self) -> None:
        if not self.channels:
            raise InvalidRequest("channels is empty; an autoencoder needs at least one stage")
        if self.decoder_channels is not None and len(self.decoder_channels) != len(self.channels):
            raise InvalidRequest(
                f"decoder_channels has {len(self.decoder_channels)} stages and channels {len(self.channels)}; "
                "both sides must have the same number"
            )
        for channels in (*self.channels, *(self.decoder_channels or ())):
            check_divisible("channels", channels, self.groups, "the number of groups of a norm")

    @property
    def downscale(self) -> int:
        """Pixels per latent, along one side."""
        return int(self.patch_size * 2 ** (len(self.channels) - 1))

    def encoder_stages(self) -> tuple[VAEStage, ...]:
        """Stages of the encoder, finest first; all but the coarsest end with a downsampling."""
        return _stages(self.channels, self.blocks_per_stage)

    def decoder_stages(self) -> tuple[VAEStage, ...]:
        """Stages of the decoder, coarsest first; all but the finest end with an upsampling."""
        channels = self.channels if self.decoder_channels is None else self.decoder_channels
        blocks = self.blocks_per_stage + 1 if self.decoder_blocks is None else self.decoder_blocks
        return _stages(channels[::-1], blocks)


@dataclass(frozen=True, kw_only=True)
class VAEStage:
    """Plan of one resolution: (channels in, channels out) of each residual block, and whether a resampling ends it."""

    blocks: tuple[tuple[int, int], ...]
    resample: bool

    @property
    def channels(self) -> int:
        return self.blocks[-1][1]


def _stages(channels: tuple[int, ...], blocks: int) -> tuple[VAEStage, ...]:
    """Stages in the order in which they run; the first block of each changes the number of channels."""
    return tuple(
        VAEStage(
            blocks=tuple((channels[max(index - 1, 0)] if block == 0 else width, width) for block in range(blocks)),
            resample=index < len(channels) - 1,
        )
        for index, width in enumerate(channels)
    )


class AttentionBlock(nn.Module):
    """Self-attention with one head over the pixels of a feature map [B,C,H,W], as a residual."""

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.attention = Attention(channels, heads=1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.attention(self.norm(x).flatten(2).transpose(1, 2))  # [B, H W, C]
        out: Tensor = x + tokens.transpose(1, 2).unflatten(2, x.shape[-2:])
        return out


class Mid(nn.Module):
    """The coarsest part of both sides: residual block, attention, residual block."""

    def __init__(self, channels: int, *, attention: bool, groups: int) -> None:
        super().__init__()
        self.resblock1 = ResBlock(channels, channels, groups=groups)
        self.attention = AttentionBlock(channels, groups=groups) if attention else nn.Identity()
        self.resblock2 = ResBlock(channels, channels, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resblock2(self.attention(self.resblock1(x)))
        return out


class EncoderStage(nn.Module):
    def __init__(self, plan: VAEStage, *, groups: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(ResBlock(c_in, c_out, groups=groups) for c_in, c_out in plan.blocks))
        self.downsample = Downsample(plan.channels, pad_end=True) if plan.resample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.downsample(self.resblocks(x))
        return out


class DecoderStage(nn.Module):
    def __init__(self, plan: VAEStage, *, groups: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(ResBlock(c_in, c_out, groups=groups) for c_in, c_out in plan.blocks))
        self.upsample = Upsample(plan.channels) if plan.resample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.upsample(self.resblocks(x))
        return out


class Encoder(nn.Module):
    """Picture [B,C,H,W] -> mean and log variance of the latent, before `quant_conv`: [B,2c,h,w]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        plans, groups = config.encoder_stages(), config.groups
        first, last = plans[0].blocks[0][0], plans[-1].channels
        self.patch_size = config.patch_size
        self.conv_in = nn.Conv2d(config.image_channels * config.patch_size**2, first, 3, padding=1)
        self.stages = nn.Sequential(*(EncoderStage(plan, groups=groups) for plan in plans))
        self.mid = Mid(last, attention=config.mid_attention, groups=groups)
        self.norm_out = nn.GroupNorm(groups, last, eps=1e-6)
        self.conv_out = nn.Conv2d(last, 2 * config.latent_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        if self.patch_size > 1:
            image = F.pixel_unshuffle(image, self.patch_size)  # [B, C p p, H / p, W / p]
        x = self.mid(self.stages(self.conv_in(image)))
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))  # [B, 2 c, h, w]
        return out


class Decoder(nn.Module):
    """Latent [B,c,h,w], after `post_quant_conv` -> picture [B,C,H,W]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        plans, groups = config.decoder_stages(), config.groups
        first, last = plans[0].blocks[0][0], plans[-1].channels
        self.patch_size = config.patch_size
        self.conv_in = nn.Conv2d(config.latent_channels, first, 3, padding=1)
        self.mid = Mid(first, attention=config.mid_attention, groups=groups)
        self.stages = nn.Sequential(*(DecoderStage(plan, groups=groups) for plan in plans))
        self.norm_out = nn.GroupNorm(groups, last, eps=1e-6)
        self.conv_out = nn.Conv2d(last, config.image_channels * config.patch_size**2, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.stages(self.mid(self.conv_in(latent)))  # [B, C, H / p, W / p]
        image = self.conv_out(F.silu(self.norm_out(x)))
        return F.pixel_shuffle(image, self.patch_size) if self.patch_size > 1 else image


@dataclass(frozen=True)
class Gaussian:
    """What the encoder says of the latent: a normal distribution with `mean` and `logvar`, both [B,c,h,w]."""

    mean: Tensor
    logvar: Tensor

    @property
    def mode(self) -> Tensor:
        """The likeliest latent: the mean."""
        return self.mean

    def sample(self, *, generator: torch.Generator | None = None, noise: Tensor | None = None) -> Tensor:
        """mean + standard deviation * noise; the noise is given, or drawn from `generator` (on its device)."""
        if noise is None:
            device = self.mean.device if generator is None else generator.device
            noise = torch.randn(self.mean.shape, generator=generator, device=device)
        return self.mean + torch.exp(0.5 * self.logvar) * noise.to(self.mean)

    def kl(self) -> Tensor:
        """KL divergence from the standard normal in nats, summed over the latent: [B] (Kingma & Welling, eq. 10)."""
        mean, logvar = self.mean.float(), self.logvar.float()
        return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=(1, 2, 3))


class VAE(nn.Module):
    """Encoder and decoder; latents are as the encoder makes them, not yet scaled to unit variance."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(*(2 * config.latent_channels,) * 2, 1) if config.quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(*(config.latent_channels,) * 2, 1) if config.quant_conv else nn.Identity()
        self.decoder = Decoder(config)

    @property
    def downscale(self) -> int:
        """Pixels per latent, along one side."""
        return self.config.downscale

    def encode(self, image: Tensor) -> Gaussian:
        """[B,C,H,W] in [-1, 1] -> distribution of the latent [B,c,H/downscale,W/downscale].

        InvalidRequest where height or width is not a multiple of `downscale`.
        """
        height, width = image.shape[-2:]
        if height % self.downscale or width % self.downscale:
            raise InvalidRequest(
                f"the picture is {width}x{height}; width and height must be multiples of {self.downscale}"
            )
        mean, logvar = self.quant_conv(self.encoder(image)).chunk(2, dim=1)  # [B, c, h, w] each
        return Gaussian(mean, logvar.clamp(-30.0, 20.0))

    def decode(self, latent: Tensor) -> Tensor:
        """[B,c,h,w] -> picture [B,C,h*downscale,w*downscale], about [-1, 1], not clamped."""
        out: Tensor = self.decoder(self.post_quant_conv(latent))
        return out

    def forward(self, image: Tensor) -> tuple[Tensor, Gaussian]:
        """The picture decoded from a sample of its latent, and that latent's distribution, as training needs them."""
        latent = self.encode(image)
        return self.decode(latent.sample()), latent
