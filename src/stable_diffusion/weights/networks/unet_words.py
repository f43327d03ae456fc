"""The U-Net's settings as diffusers writes them in `unet/config.json`, both ways.

A setting that would change the mathematics and that we do not have is an error, never ignored; and what is written is
read back and compared, so that a U-Net that diffusers has no words for is an error and never another one.

Source: the documented configuration fields of diffusers' UNet2DConditionModel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import BrokenModel, InvalidRequest
from ...models.config import tuples
from ...models.unet import UNetConfig
from .words import VERSION, Fixed, Word, Words, check_fixed, constant, need_word, read_words, write_words

FIXED: Fixed = {
    "act_fn": ("silu", "swish"),
    "norm_eps": (1e-5,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "addition_embed_type": (None, "text_time"),
    "resnet_time_scale_shift": ("default",),
    "resnet_out_scale_factor": (1.0,),
    "time_embedding_type": ("positional",),
    "attention_type": ("default",),
    "mid_block_only_cross_attention": (None, False),
    **dict.fromkeys(("downsample_padding", "mid_block_scale_factor"), (1,)),
    **dict.fromkeys(("conv_in_kernel", "conv_out_kernel"), (3,)),
    **dict.fromkeys(("center_input_sample", "only_cross_attention", "dual_cross_attention"), (False,)),
    **dict.fromkeys(("resnet_skip_time_act", "class_embeddings_concat"), (False,)),
    **dict.fromkeys(("class_embed_type", "num_class_embeds", "encoder_hid_dim", "cross_attention_norm"), (None,)),
    **dict.fromkeys(("time_embedding_act_fn", "timestep_post_act"), (None,)),
}
"""Settings of a U-Net for which we have one value only."""
MID_BLOCKS = {"UNetMidBlock2DCrossAttn": 2, "UNetMidBlock2D": 1, None: 0}
"""Residual blocks of each kind of middle; only a whole one attends."""
VECTOR = "projection_class_embeddings_input_dim"


def _down_types(config: UNetConfig) -> list[str]:
    return ["CrossAttnDownBlock2D" if stage.attends else "DownBlock2D" for stage in config.down_stages()]


def _up_types(config: UNetConfig) -> list[str]:
    return ["CrossAttnUpBlock2D" if stage.attends else "UpBlock2D" for stage in config.up_stages()]


def _middle(config: UNetConfig) -> str | None:
    if config.mid_stage().attends:
        return "UNetMidBlock2DCrossAttn"
    return "UNetMidBlock2D" if config.mid_blocks else None


def _depths(config: UNetConfig) -> Any:
    middle = config.mid_stage().depths[0] or 1
    return _one([_one(list(stage.depths)) if stage.attends else middle for stage in config.down_stages()])


def _up_depths(config: UNetConfig) -> Any:
    return None if config.up_depth is None else [_one(list(stage.depths)) or 1 for stage in config.up_stages()]


def _one(values: list[Any]) -> Any:
    """One value where all are equal."""
    return values[0] if all(value == values[0] for value in values) else values


UNET_WORDS = (
    Word("in_channels", "in_channels"),
    Word("out_channels", "out_channels"),
    Word("block_out_channels", "channels", kind="list"),
    Word("layers_per_block", lambda config: _one(list(config.block_counts()))),
    Word("down_block_types", _down_types),
    Word("up_block_types", _up_types),
    Word("mid_block_type", _middle),
    Word("transformer_layers_per_block", _depths),
    Word("cross_attention_dim", "context_dim"),
    # this setting means the number of heads in diffusers
    Word("attention_head_dim", lambda config: _one([config.heads_at(stage) for stage in range(len(config.channels))])),
    Word("use_linear_projection", "linear_projection", False, "flag"),
    Word("upcast_attention", "upcast_attention", False, "flag"),
    Word("norm_num_groups", "groups", 32),
    constant("norm_eps", 1e-05),
    constant("act_fn", "silu"),
    constant("flip_sin_to_cos", True),
    constant("freq_shift", 0),
    Word("time_cond_proj_dim", "guidance_dim", None),
    Word("reverse_transformer_layers_per_block", _up_depths, None),
)


def unet_from_words(words: Words, where: Path) -> UNetConfig:
    """`unet/config.json` -> `UNetConfig`; BrokenModel names a setting that we do not have."""
    check_fixed(words, FIXED, where)
    stages = len(need_word(words, "block_out_channels", where))
    down, up = need_word(words, "down_block_types", where), need_word(words, "up_block_types", where)
    attends = [kind == "CrossAttnDownBlock2D" for kind in down]
    mirrored = ["CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)]
    if any(kind not in ("CrossAttnDownBlock2D", "DownBlock2D") for kind in down) or list(up) != mirrored:
        raise BrokenModel(f"{where} has the blocks {list(down)} and {list(up)}, which this version does not run")
    depth = _per_stage(words.get("transformer_layers_per_block", 1), stages)
    reverse = words.get("reverse_transformer_layers_per_block")
    middle = words.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    if middle not in MID_BLOCKS:
        raise BrokenModel(f"{where} has mid_block_type {middle!r}, which this version does not run")
    # diffusers reads `attention_head_dim` as the number of heads unless `num_attention_heads` is given
    heads = words.get("num_attention_heads")
    return UNetConfig(
        **read_words(UNET_WORDS, words, where),
        blocks_per_stage=_tuple(words.get("layers_per_block", 2)),
        transformer_depth=_where(attends, depth),
        up_depth=None if reverse is None else _where(attends, _per_stage(reverse, stages)[::-1]),
        mid_depth=depth[-1] if MID_BLOCKS[middle] == 2 else 0,
        mid_blocks=MID_BLOCKS[middle],
        vector_dim=need_word(words, VECTOR, where) if words.get("addition_embed_type") else None,
        heads=_tuple(words.get("attention_head_dim", 8) if heads is None else heads),
    )


def size_numbers(words: Words, pooled: int, where: Path) -> int:
    """How many numbers on size the U-Net expects beside the pooled text of this width: 6, 5 (the refiner) or 0."""
    if words.get("addition_embed_type") is None:
        return 0
    width = need_word(words, "addition_time_embed_dim", where)
    count, rest = divmod(need_word(words, VECTOR, where) - pooled, width)
    if rest or count not in (5, 6) or not pooled:
        raise BrokenModel(
            f"{where} has {VECTOR} {words[VECTOR]}; expected {pooled} of the text and 5 or 6 times {width} of sizes"
        )
    return int(count)


def unet_to_words(config: UNetConfig, *, pooled: int | None, size_numbers: int, size: int) -> dict[str, Any]:
    """`unet/config.json`. `size` is the side of the latents; `pooled` the width of the text's vector, if it is used.

    InvalidRequest where what is written, read back, would be another U-Net.
    """
    words: dict[str, Any] = {"_class_name": "UNet2DConditionModel", "_diffusers_version": VERSION}
    words |= {"sample_size": size, **write_words(UNET_WORDS, config)}
    if size_numbers:
        words |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": ((config.vector_dim or 0) - (pooled or 0)) // size_numbers,
            VECTOR: config.vector_dim,
        }
    read = unet_from_words(words, Path("unet/config.json"))
    for what in ("down_stages", "mid_stage", "up_stages"):
        if getattr(read, what)() != getattr(config, what)():
            raise InvalidRequest(f"a diffusers folder has no words for this U-Net: its {what} would be another")
    if config.vector_dim != read.vector_dim:
        raise InvalidRequest("a diffusers folder has no words for this U-Net: it takes a vector that is not of sizes")
    return words


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _where(attends: list[bool], depth: tuple[Any, ...]) -> tuple[Any, ...]:
    """Depths of the stages that attend, 0 for the others."""
    return tuple(tuples(count) if attend else 0 for count, attend in zip(depth, attends, strict=True))


def _per_stage(value: Any, stages: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list) else (value,) * stages
