"""The denoising U-Net with cross-attention to text.

Sources: Ronneberger et al. 2015, "U-Net"; Dhariwal & Nichol 2021, "Diffusion models beat GANs" (residual blocks, time
embedding); Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models" (spatial transformers,
appendix E.2.1). Podell et al. 2023, "SDXL" (a vector added to the time embedding; more than one transformer block).
Gupta et al. 2024, "Progressive knowledge distillation of Stable Diffusion XL using layer level loss" (SSD-1B and Vega:
blocks of one stage with different depths, a way up unlike the way down, half a middle or none). Hoogeboom et al. 2023,
"simple diffusion" (patches of the picture as channels, so that the work is done at a coarser grid). Luo et al. 2023,
"Latent consistency models" (the guidance scale as an input, section 4.3).

Shapes: B batch, C channels, H W latent height and width, T text tokens, D token width, V vector width, E time width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from ..nn.attention import SpatialTransformer
from ..nn.blocks import Downsample, ResBlock, Upsample, zero_conv
from ..nn.embeddings import EmbeddingMLP, guidance_embedding, timestep_embedding
from ..nn.fine import FineStage
from ..nn.patches import detail_velocity, fold, unfold
from ..types import Residuals
from .config import ModelConfig, check_divisible, per_stage

Depths = int | tuple[int | tuple[int, ...], ...]
"""Transformer blocks: one number for all stages, or for each stage a number or one number per spatial transformer."""


@dataclass(frozen=True, kw_only=True)
class UNetConfig(ModelConfig):
    """Shape of a U-Net; the defaults are Stable Diffusion 1.x.

    Stages run from the finest resolution to the coarsest, which each halve height and width. `blocks_per_stage` and
    `transformer_depth` (blocks in each spatial transformer, 0 for none) hold one number per stage, or one for all;
    `mid_depth` None means that of the coarsest stage that has transformers. In pruned models the spatial transformers
    of one stage may differ: a stage's depth is then a tuple, one number per block in the order in which they run, and
    `up_depth` holds the way up's (None: like the way down); `mid_blocks` is 2, or 1 or 0 for a middle without
    attention that has one residual block or nothing. Attention has `heads` heads (for all
    stages, or one number per stage) or heads of width `head_dim`; with neither given, 8 heads. `vector_dim` is the
    width of the vector that is added to the time embedding, and `guidance_dim` that of the embedding of the guidance
    scale in models that are told it. `linear_projection` says how checkpoints in foreign layouts
    store the projections of the spatial transformers: as matrices (Stable Diffusion 2) or as 1x1 convolutions; the
    model is the same. `patch_size` p folds p x p latents into channels before the first convolution and unfolds them
    after the last, which costs p * p times less. `patch_detail`, for the velocity of rectified flows only, is the
    variance in latents of what differs inside a patch, with which the velocity of that part is guessed before the
    network adds its own (0: no guess). `fine_channels` (0: none) is the width of a last stage of `fine_blocks` residual
    blocks at the latents' own grid (`nn.fine`). No foreign layout has these.
    """

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks_per_stage: int | tuple[int, ...] = 2
    transformer_depth: Depths = (1, 1, 1, 0)
    up_depth: Depths | None = None
    mid_depth: int | None = None
    mid_blocks: int = 2
    heads: int | tuple[int, ...] | None = None
    head_dim: int | None = None
    context_dim: int = 768
    vector_dim: int | None = None
    guidance_dim: int | None = None
    linear_projection: bool = False
    upcast_attention: bool = False
    groups: int = 32
    patch_size: int = 1
    patch_detail: float = 0.0
    fine_channels: int = 0
    fine_blocks: int = 2

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.patch_detail < 0:
            given = f"patch_size is {self.patch_size} and patch_detail {self.patch_detail}"
            raise InvalidRequest(f"{given}; expected at least 1 and at least 0")
        if self.fine_channels < 0 or self.fine_blocks < 0:
            given = f"fine_channels is {self.fine_channels} and fine_blocks {self.fine_blocks}"
            raise InvalidRequest(f"{given}; expected at least 0")
        if self.fine_channels:
            check_divisible("fine_channels", self.fine_channels, self.groups, "the number of groups of a norm")
            check_divisible("channels[0]", self.channels[0], self.patch_size**2, "the latents of a patch")
        if not self.channels:
            raise InvalidRequest("channels is empty; a U-Net needs at least one stage")
        if self.heads is not None and self.head_dim is not None:
            raise InvalidRequest(f"heads={self.heads} and head_dim={self.head_dim} are both given; give one of them")
        check_divisible("channels[0]", self.channels[0], 2, "the time embedding is half cosines, half sines")
        if self.guidance_dim is not None and (self.guidance_dim < 4 or self.guidance_dim % 2):
            raise InvalidRequest(f"guidance_dim is {self.guidance_dim}; expected an even number of at least 4")
        for channels in self.channels:
            check_divisible("channels", channels, self.groups, "the number of groups of a norm")
        if self.mid_blocks not in (0, 1, 2) or (self.mid_blocks < 2 and self.mid_stage().attends):
            raise InvalidRequest(
                f"mid_blocks is {self.mid_blocks} with mid_depth {self.mid_depth}; "
                "expected 2, or 1 or 0 with mid_depth 0"
            )
        for stage in (*self.down_stages(), self.mid_stage(), *self.up_stages()):
            if stage.attends:
                check_divisible("channels", stage.channels, stage.heads, "the number of attention heads")
                if self.head_dim is not None:
                    check_divisible("channels", stage.channels, self.head_dim, "the width of an attention head")

    @property
    def time_dim(self) -> int:
        """E, the width of the time embedding."""
        return 4 * self.channels[0]

    @property
    def downscale(self) -> int:
        """Factor between the latent and the coarsest feature map; latent sizes that are multiples of it are best."""
        return int(self.patch_size * 2 ** (len(self.channels) - 1))

    def heads_at(self, stage: int) -> int:
        """Number of attention heads in a stage."""
        if self.head_dim is not None:
            return max(1, self.channels[stage] // self.head_dim)
        return per_stage("heads", 8 if self.heads is None else self.heads, len(self.channels), least=1)[stage]

    def depths_at(self, stage: int, blocks: int, *, up: bool) -> tuple[int, ...]:
        """Transformer blocks after each of the `blocks` residual blocks of a stage, all of them 0 or none."""
        name, value = ("up_depth", self.up_depth) if up and self.up_depth is not None else ("", self.transformer_depth)
        name = name or "transformer_depth"
        if isinstance(value, int):
            value = (value,) * len(self.channels)
        if len(value) != len(self.channels):
            raise InvalidRequest(f"{name} is {value}; expected one for each of the {len(self.channels)} stages")
        found = value[stage]
        depths = (found,) * blocks if isinstance(found, int) else tuple(found)
        if len(depths) != blocks:
            raise InvalidRequest(f"{name} is {found} in stage {stage}; expected one number for each of {blocks} blocks")
        if min(depths) < 0 or (0 in depths and any(depths)):
            raise InvalidRequest(f"{name} is {found}; expected at least 0 in every stage, and none or all of a stage 0")
        return depths

    def block_counts(self) -> tuple[int, ...]:
        """Residual blocks on the way down, stage by stage; on the way up there is one more in each."""
        return per_stage("blocks_per_stage", self.blocks_per_stage, len(self.channels), least=1)

    def _stage(self, index: int, blocks: list[tuple[int, int]], resample: bool, *, up: bool) -> UNetStage:
        depths = self.depths_at(index, len(blocks), up=up)
        return UNetStage(blocks=tuple(blocks), depths=depths, heads=self.heads_at(index), resample=resample)

    def down_stages(self) -> tuple[UNetStage, ...]:
        """Stages on the way down, finest first; all but the coarsest end with a downsampling."""
        stages, previous = [], self.channels[0]
        for index, (channels, count) in enumerate(zip(self.channels, self.block_counts(), strict=True)):
            blocks = [(previous if block == 0 else channels, channels) for block in range(count)]
            stages.append(self._stage(index, blocks, resample=index < len(self.channels) - 1, up=False))
            previous = channels
        return tuple(stages)

    def mid_stage(self) -> UNetStage:
        """The middle: two residual blocks with one transformer between them, or less in pruned models."""
        depth = self.mid_depth
        if depth is None:
            deepest = [max(stage.depths) for stage in self.down_stages()]
            depth = next((depth for depth in reversed(deepest) if depth), 0) if self.mid_blocks == 2 else 0
        blocks = ((self.channels[-1],) * 2,) * self.mid_blocks
        return UNetStage(blocks=blocks, depths=(depth,), heads=self.heads_at(-1), resample=False)

    def skip_channels(self) -> list[int]:
        """Channels of the feature maps that the way down hands to the way up, in the order they are made."""
        skips = [self.channels[0]]
        for stage in self.down_stages():
            skips += [stage.channels] * (len(stage.blocks) + stage.resample)
        return skips

    def up_stages(self) -> tuple[UNetStage, ...]:
        """Stages on the way up, coarsest first; each block takes one skip, and all but the finest end by upsampling."""
        stages, previous, skips = [], self.channels[-1], self.skip_channels()
        for index in reversed(range(len(self.channels))):
            blocks = []
            for _ in range(self.block_counts()[index] + 1):
                blocks.append((previous + skips.pop(), self.channels[index]))
                previous = self.channels[index]
            stages.append(self._stage(index, blocks, resample=index > 0, up=True))
        assert not skips
        return tuple(stages)


@dataclass(frozen=True, kw_only=True)
class UNetStage:
    """Plan of one resolution, from which the model and the key tables are built.

    `blocks` holds (channels in, channels out) of each residual block; each is followed by a spatial transformer of
    as many blocks as `depths` says, where that is not 0 (in the middle there is one, after the first residual block);
    `resample` says that a downsampling (on the way up: an upsampling) ends the stage.
    """

    blocks: tuple[tuple[int, int], ...]
    depths: tuple[int, ...]
    heads: int
    resample: bool

    @property
    def attends(self) -> bool:
        """Whether the stage has spatial transformers."""
        return any(self.depths)

    @property
    def channels(self) -> int:
        return self.blocks[-1][1]


def resblock(config: UNetConfig, channels_in: int, channels_out: int) -> ResBlock:
    return ResBlock(channels_in, channels_out, time_width=config.time_dim, groups=config.groups, eps=1e-5)


def fine_stage(config: UNetConfig) -> FineStage:
    return FineStage(
        config.in_channels, config.out_channels, config.channels[0], config.patch_size, width=config.fine_channels,
        blocks=config.fine_blocks, time_width=config.time_dim, groups=config.groups,
    )  # fmt: skip


def transformer(config: UNetConfig, plan: UNetStage, index: int = 0) -> SpatialTransformer:
    return SpatialTransformer(
        plan.channels,
        plan.heads,
        plan.depths[index],
        config.context_dim,
        groups=config.groups,
        upcast=config.upcast_attention,
    )


class Stage(nn.Module):
    """The layers of one resolution: residual blocks, each followed by a transformer where the stage has any."""

    def __init__(self, config: UNetConfig, plan: UNetStage) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(resblock(config, *channels) for channels in plan.blocks)
        count = len(plan.blocks) if plan.attends else 0
        self.transformers = nn.ModuleList(transformer(config, plan, index) for index in range(count))

    def block(self, index: int, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        """Residual block `index` and the transformer after it, where the stage has transformers."""
        x = self.resblocks[index](x, time)
        return self.transformers[index](x, tokens) if len(self.transformers) else x


class DownStage(Stage):
    def __init__(self, config: UNetConfig, plan: UNetStage) -> None:
        super().__init__(config, plan)
        self.downsample = Downsample(plan.channels) if plan.resample else None

    def forward(
        self, x: Tensor, time: Tensor, tokens: Tensor, added: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The features below, and the skips: one after each block, and one after the downsampling.

        `added` is what a side network adds here (see `Residuals.stages`); it is part of the skip, too.
        """
        skips = []
        for index in range(len(self.resblocks)):
            x = self.block(index, x, time, tokens)
            skips.append(x)
        if added is not None and len(self.transformers):
            skips[-1] = x = x + added
        if self.downsample is not None:
            x = self.downsample(x)
            skips.append(x)
        if added is not None and not len(self.transformers):
            skips[-1] = x = x + added
        return x, skips


class MidStage(nn.Module):
    def __init__(self, config: UNetConfig, plan: UNetStage) -> None:
        super().__init__()
        blocks = len(plan.blocks)
        self.resblock1 = resblock(config, *plan.blocks[0]) if blocks > 0 else None
        self.transformer = transformer(config, plan) if plan.attends else None
        self.resblock2 = resblock(config, *plan.blocks[1]) if blocks > 1 else None

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        if self.resblock1 is not None:
            x = self.resblock1(x, time)
        if self.transformer is not None:
            x = self.transformer(x, tokens)
        return x if self.resblock2 is None else self.resblock2(x, time)


class UpStage(Stage):
    def __init__(self, config: UNetConfig, plan: UNetStage) -> None:
        super().__init__(config, plan)
        self.upsample = Upsample(plan.channels) if plan.resample else None

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, tokens: Tensor) -> Tensor:
        """Takes one skip per block from the end of `skips`, and upsamples to the size of the skip that comes next."""
        for index in range(len(self.resblocks)):
            x = self.block(index, torch.cat((x, skips.pop()), dim=1), time, tokens)
        if self.upsample is not None:
            # An odd height or width was rounded up on the way down, so the way up cannot simply double it.
            x = self.upsample(x, (skips[-1].shape[-2], skips[-1].shape[-1]))
        return x


class UNetEncoder(nn.Module):
    """The way down and the middle of a U-Net, which a ControlNet has as well."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.time_mlp = EmbeddingMLP(config.channels[0], config.time_dim)
        self.vector_mlp = None if config.vector_dim is None else EmbeddingMLP(config.vector_dim, config.time_dim)
        self.conv_in = nn.Conv2d(config.in_channels * config.patch_size**2, config.channels[0], 3, padding=1)
        self.down = nn.ModuleList(DownStage(config, plan) for plan in config.down_stages())
        self.mid = MidStage(config, config.mid_stage())

    def embed_time(self, x: Tensor, timestep: Tensor, vector: Tensor | None, guidance: Tensor | None = None) -> Tensor:
        """timestep [B] and vector [B,V] -> [B,E], in the dtype of x; the sinusoids are computed in float32.

        `guidance` [B,C] is what `guidance_proj` makes of the guidance scale, and is added to the sinusoids.
        """
        sinusoids = timestep_embedding(timestep, self.config.channels[0]).to(x.dtype)
        embedding: Tensor = self.time_mlp(sinusoids if guidance is None else sinusoids + guidance)
        if self.vector_mlp is None:
            if vector is not None:
                raise InvalidRequest("a vector was given to a U-Net that takes none (its vector_dim is None)")
            return embedding
        if vector is None:
            raise InvalidRequest(f"this U-Net needs a vector of width {self.config.vector_dim}, and none was given")
        embedding = embedding + self.vector_mlp(vector)
        return embedding

    def enter(self, x: Tensor) -> Tensor:
        """x [B,C_in,H,W] -> features [B,C,H/p,W/p], p the patch size."""
        x = fold(x, self.config.patch_size) if self.config.patch_size > 1 else x
        features: Tensor = self.conv_in(x)
        return features

    def encode(
        self, x: Tensor, time: Tensor, tokens: Tensor, stages: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """x [B,C,H,W] after the first convolution -> (the middle's features, all skips with x itself first).

        `stages` are `Residuals.stages`.
        """
        if stages and len(stages) != len(self.down):
            raise InvalidRequest(f"{len(stages)} features were given; this U-Net has {len(self.down)} stages")
        skips = [x]
        for index, stage in enumerate(self.down):
            x, made = stage(x, time, tokens, stages[index] if stages else None)
            skips += made
        return self.mid(x, time, tokens), skips


class UNet(UNetEncoder):
    """What the noisy latent hides: noise, velocity or the clean latent, according to how it was trained."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        width = config.guidance_dim
        self.guidance_proj = None if width is None else nn.Linear(width, config.channels[0], bias=False)
        self.up = nn.ModuleList(UpStage(config, plan) for plan in config.up_stages())
        self.norm_out = nn.GroupNorm(config.groups, config.channels[0], eps=1e-5)
        self.conv_out = zero_conv(config.channels[0], config.out_channels * config.patch_size**2)
        self.fine = fine_stage(config) if config.fine_channels else None

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        tokens: Tensor,
        *,
        vector: Tensor | None = None,
        guidance: Tensor | None = None,
        residuals: Residuals | None = None,
    ) -> Tensor:
        """x [B,C_in,H,W], timestep [B] in [0, 1000], tokens [B,T,D], vector [B,V] -> [B,C_out,H,W].

        `guidance` [B] is the guidance scale, for networks that are told it. `residuals` of side networks are added
        where their docstring says. Any height and width of at least 1 works. InvalidRequest where `vector` or
        `guidance` is missing or not wanted, or the number of residuals is wrong.
        """
        time = F.silu(self.embed_time(x, timestep, vector, self._embed_guidance(x, guidance)))  # [B, E]
        latent = x
        x = self.enter(x)  # [B, C, H / p, W / p]
        x, skips = self.encode(x, time, tokens, () if residuals is None else residuals.stages)
        if residuals is not None:
            skips, x = self._add_residuals(skips, x, residuals)
        for stage in self.up:
            x = stage(x, skips, time, tokens)
        x = F.silu(self.norm_out(x))
        out: Tensor = self.conv_out(x)  # [B, C_out p p, H / p, W / p]
        out = out if self.config.patch_size == 1 else self._unfolded(out, latent, timestep)
        return out if self.fine is None else out + self.fine(latent, out, x, time)

    def _unfolded(self, out: Tensor, latent: Tensor, timestep: Tensor) -> Tensor:
        """The latents of the patches in `out`, and what a straight line knows of their detail."""
        config = self.config
        out = unfold(out, config.patch_size, *latent.shape[-2:])
        if config.patch_detail > 0:
            given = latent[:, : config.out_channels]  # the rest of an inpainting model's input is no noisy latent
            out = out + detail_velocity(given, timestep / 1000, config.patch_size, config.patch_detail)
        return out

    def _embed_guidance(self, x: Tensor, guidance: Tensor | None) -> Tensor | None:
        """[B] -> [B,C]; in released models what is embedded is the scale minus 1, the weight of the difference."""
        if (self.guidance_proj is None) != (guidance is None):
            wanted = "none is wanted" if guidance is not None else "this U-Net is told it"
            raise InvalidRequest(f"the guidance scale is {guidance}; {wanted}")
        if self.guidance_proj is None or guidance is None:
            return None
        out: Tensor = self.guidance_proj(guidance_embedding(guidance - 1, self.guidance_proj.in_features).to(x.dtype))
        return out

    @staticmethod
    def _add_residuals(skips: list[Tensor], mid: Tensor, residuals: Residuals) -> tuple[list[Tensor], Tensor]:
        if residuals.down:
            if len(residuals.down) != len(skips):
                raise InvalidRequest(f"{len(residuals.down)} residuals were given; this U-Net has {len(skips)} skips")
            skips = [skip + residual for skip, residual in zip(skips, residuals.down, strict=True)]
        return skips, mid if residuals.mid is None else mid + residuals.mid
