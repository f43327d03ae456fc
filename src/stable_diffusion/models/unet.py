"""The denoising U-Net with cross-attention to text.

Sources: Ronneberger et al. 2015, "U-Net"; Dhariwal & Nichol 2021, "Diffusion models beat GANs" (residual blocks, time
embedding); Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models" (spatial transformers,
appendix E.2.1). Podell et al. 2023, "SDXL" (a vector added to the time embedding; more than one transformer block).
Gupta et al. 2024, "Progressive knowledge distillation of Stable Diffusion XL using layer level loss" (SSD-1B and Vega:
blocks of one stage with different depths, a way up unlike the way down, half a middle or none). Hoogeboom et al. 2023,
"simple diffusion" (patches of the picture as channels, so that the work is done at a coarser grid). Luo et al. 2023,
"Latent consistency models" (the guidance scale as an input, section 4.3). Ma et al. 2023, "DeepCache: accelerating
diffusion models for free" (deep features of the step before, section 3.2).

Shapes: B batch, C channels, H W latent height and width, T text tokens, D token width, V vector width, E time width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from ..nn.attention import SpatialTransformer
from ..nn.blocks import Downsample, ResBlock, Upsample, zero_conv
from ..nn.embeddings import EmbeddingMLP, guidance_embedding, timestep_embedding
from ..nn.fine import FineStage
from ..nn.patches import detail_velocity, fold, unfold
from ..types import DeepFeatures, Residuals
from .unet_plan import UNetConfig, UNetStage

__all__ = ["UNet", "UNetConfig", "UNetEncoder", "UNetStage"]


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

    def forward(
        self, x: Tensor, skips: Sequence[Tensor], time: Tensor, tokens: Tensor, size: tuple[int, int] | None = None
    ) -> Tensor:
        """`skips`, one per block, are joined last first; then the features are upsampled to `size` (height, width)."""
        x = self.joined(x, skips, time, tokens)
        return x if self.upsample is None else self.upsample(x, size)

    def joined(self, x: Tensor, skips: Sequence[Tensor], time: Tensor, tokens: Tensor, first: int = 0) -> Tensor:
        """The blocks from number `first` on, one for each of `skips`, which are joined last first."""
        for index, skip in enumerate(reversed(skips), first):
            x = self.block(index, torch.cat((x, skip), dim=1), time, tokens)
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
        self._skip_counts = [len(plan.blocks) for plan in config.up_stages()]
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
        deep: DeepFeatures | None = None,
    ) -> Tensor:
        """x [B,C_in,H,W], timestep [B] in [0, 1000], tokens [B,T,D], vector [B,V] -> [B,C_out,H,W].

        `guidance` [B] is the guidance scale, for networks that are told it. `residuals` of side networks are added
        where their docstring says. With `deep` the features before the last blocks are kept in it, or taken from it and
        all that makes them is left out. Any height and width of at least 1 works. InvalidRequest where `vector` or
        `guidance` is missing or not wanted, or the number of residuals is wrong.
        """
        time = F.silu(self.embed_time(x, timestep, vector, self._embed_guidance(x, guidance)))  # [B, E]
        latent = x
        x = self.enter(x)  # [B, C, H / p, W / p]
        if deep is not None and deep.reuse:
            x = self._shallow(x, time, tokens, residuals, deep)
        else:
            x = self._whole(x, time, tokens, residuals, deep)
        x = F.silu(self.norm_out(x))
        out: Tensor = self.conv_out(x)  # [B, C_out p p, H / p, W / p]
        out = out if self.config.patch_size == 1 else self._unfolded(out, latent, timestep)
        return out if self.fine is None else out + self.fine(latent, out, x, time)

    def _whole(
        self, x: Tensor, time: Tensor, tokens: Tensor, residuals: Residuals | None, deep: DeepFeatures | None
    ) -> Tensor:
        """All stages: x after the first convolution -> the features of the last stage."""
        x, skips = self.encode(x, time, tokens, () if residuals is None else residuals.stages)
        if residuals is not None:
            skips, x = self._add_residuals(skips, x, residuals)
        for stage, count in zip(self.up, self._skip_counts, strict=True):
            # A stage gets its own skips, and takes none from a common list: what wraps a module may hand it a copy.
            skips, own = skips[:-count], skips[-count:]
            if deep is not None and not skips:
                return self._keeping(x, own, time, tokens, deep)
            # An odd height or width was rounded up on the way down, so the way up cannot simply double it.
            x = stage(x, own, time, tokens, (skips[-1].shape[-2], skips[-1].shape[-1]) if skips else None)
        return x

    def _keeping(self, x: Tensor, skips: list[Tensor], time: Tensor, tokens: Tensor, deep: DeepFeatures) -> Tensor:
        """The last stage, in two parts: what its first blocks give is kept."""
        stage = self.up[-1]
        assert isinstance(stage, UpStage)
        few = min(deep.shallow, len(skips) - 1) + 1
        x = stage.joined(x, skips[few:], time, tokens)
        deep.kept = (x,)
        return stage.joined(x, skips[:few], time, tokens, len(skips) - few)

    def _shallow(
        self, x: Tensor, time: Tensor, tokens: Tensor, residuals: Residuals | None, deep: DeepFeatures
    ) -> Tensor:
        """The second of these parts, with the skips that it needs."""
        first, last, skips = self.down[0], self.up[-1], [x]
        assert isinstance(first, DownStage) and isinstance(last, UpStage)
        for index in range(min(deep.shallow, len(first.resblocks))):
            x = first.block(index, x, time, tokens)
            skips.append(x)
        if residuals is not None and residuals.stages and len(first.transformers) == len(skips) - 1 > 0:
            skips[-1] = skips[-1] + residuals.stages[0]
        if residuals is not None and residuals.down:
            skips = [skip + each for skip, each in zip(skips, residuals.down, strict=False)]
        return last.joined(deep.kept[0], skips, time, tokens, self._skip_counts[-1] - len(skips))

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
            wanted = "none is wanted" if guidance is not None else "this U-Net reads it"
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
