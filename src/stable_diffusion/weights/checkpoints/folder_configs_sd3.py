"""Configs of a diffusers folder of Stable Diffusion 3 in our words: its transformer and T5.

Sources: the documented configuration fields of diffusers' SD3Transformer2DModel and of transformers' T5Config.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import BrokenModel
from ...models.mmdit import MMDiTConfig
from ...models.t5 import EPS, T5Config
from .folder_configs import Config, check_fixed

QK_NORM = {None: False, "rms_norm": True}
T5_FIXED: dict[str, tuple[Any, ...]] = {"feed_forward_proj": ("gated-gelu",), "layer_norm_epsilon": (EPS,)}


def mmdit_config(config: Config, where: Path) -> MMDiTConfig:
    """`transformer/config.json` -> `MMDiTConfig`, with diffusers' defaults; BrokenModel names what we do not have."""
    norm = config.get("qk_norm")
    if norm not in QK_NORM:
        raise BrokenModel(f"{where} has qk_norm {norm!r}; this version runs 'rms_norm' or none")
    heads, channels = _number(config, "num_attention_heads", 18), _number(config, "in_channels", 16)
    width = heads * _number(config, "attention_head_dim", 64)
    if _number(config, "caption_projection_dim", 1152) != width:
        raise BrokenModel(
            f"{where} has caption_projection_dim {config.get('caption_projection_dim')}; expected {width}"
        )
    out = config.get("out_channels", 16)
    return MMDiTConfig(
        in_channels=channels,
        out_channels=channels if out is None else out,
        patch_size=_number(config, "patch_size", 2),
        width=width,
        depth=_number(config, "num_layers", 18),
        heads=heads,
        context_dim=_number(config, "joint_attention_dim", 4096),
        vector_dim=_number(config, "pooled_projection_dim", 2048),
        positions=_number(config, "pos_embed_max_size", 96),
        qk_norm=QK_NORM[norm],
        dual_attention=tuple(config.get("dual_attention_layers", ())),
    )


def t5_config(config: Config, where: Path) -> T5Config:
    """`text_encoder_3/config.json` -> `T5Config`; BrokenModel where it is not a T5 v1.1."""
    check_fixed(config, T5_FIXED, where)
    return T5Config(
        vocab_size=_number(config, "vocab_size", 32128),
        width=_number(config, "d_model", 512),
        layers=_number(config, "num_layers", 6),
        heads=_number(config, "num_heads", 8),
        head_dim=_number(config, "d_kv", 64),
        mlp_width=_number(config, "d_ff", 2048),
        buckets=_number(config, "relative_attention_num_buckets", 32),
        max_distance=_number(config, "relative_attention_max_distance", 128),
    )


def _number(config: Mapping[str, Any], name: str, default: int) -> int:
    value = config.get(name, default)
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}; a whole number from 1 is expected")
    return value
