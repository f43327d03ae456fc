"""The plan of a U-Net: its config, and the stages that follow from it, of which model and key tables are built alike.

Sources: those of `unet`, which builds the network.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidRequest
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
