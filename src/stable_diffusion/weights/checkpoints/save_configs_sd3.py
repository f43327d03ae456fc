"""Configs of Stable Diffusion 3 in the words of a diffusers folder: the inverse of `folder_configs_sd3`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...models.mmdit import MMDiTConfig
from ...models.t5 import EPS, T5Config
from .folder_configs_sd3 import mmdit_config, t5_config

Config = dict[str, Any]


def mmdit_words(config: MMDiTConfig, *, version: str, size: int) -> Config:
    """`transformer/config.json`. `size` is the side of the latents that the model was made for."""
    words: Config = {
        "_class_name": "SD3Transformer2DModel",
        "_diffusers_version": version,
        "sample_size": size,
        "patch_size": config.patch_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_layers": config.depth,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "joint_attention_dim": config.context_dim,
        "caption_projection_dim": config.width,
        "pooled_projection_dim": config.vector_dim,
        "pos_embed_max_size": config.positions,
        "dual_attention_layers": list(config.dual_attention),
        "qk_norm": "rms_norm" if config.qk_norm else None,
    }
    assert mmdit_config(words, Path("transformer/config.json")) == config, "every setting has a word"
    return words


def t5_words(config: T5Config) -> Config:
    """`text_encoder_3/config.json`, for transformers' T5EncoderModel."""
    words: Config = {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "vocab_size": config.vocab_size,
        "d_model": config.width,
        "d_kv": config.head_dim,
        "d_ff": config.mlp_width,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.max_distance,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,  # diffusers 0.42 leaves the T5 of single files in training mode, where it would drop
        "layer_norm_epsilon": EPS,
        "is_encoder_decoder": False,
        "tie_word_embeddings": False,
        "use_cache": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    assert t5_config(words, Path("text_encoder_3/config.json")) == config, "every setting has a word"
    return words


def flow_words(told: Config, *, version: str) -> Config:
    """`scheduler/scheduler_config.json` of a flow model; `told` is the `to_config` of its noise schedule."""
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": version,
        "num_train_timesteps": told["timesteps"],
        "shift": told["shift"],
        "use_dynamic_shifting": False,
    }
