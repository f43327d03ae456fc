"""Configs of a diffusers folder in our words: networks, latent space, noise schedule, prediction.

A setting that would change the mathematics and that we do not have is an error, never ignored. Sources: the documented
configuration fields of diffusers' UNet2DConditionModel, AutoencoderKL and schedulers, and transformers' CLIPTextConfig.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...diffusion.prediction import Prediction, resolve_prediction
from ...diffusion.schedule import DiscreteSchedule, FlowSchedule, ddpm_schedule, rescale_zero_terminal_snr
from ...errors import BrokenModel, UnknownModel, brief
from ...latents import LatentFormat
from ...models.clip import CLIPTextConfig
from ...models.config import tuples
from ...models.unet import UNetConfig
from ...models.vae import VAEConfig
from ..containers.limits import check_latent_numbers, using_config
from .families import SD3_LATENTS, SD_LATENTS, XL_LATENTS

Config = Mapping[str, Any]

UNET_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "norm_eps": (1e-5,),
    "center_input_sample": (False,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "only_cross_attention": (False,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "addition_embed_type": (None, "text_time"),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1.0,),
    "time_embedding_type": ("positional",),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "encoder_hid_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
}
"""Settings of a U-Net for which we have one value only (the first is the default)."""

MID_BLOCKS = {"UNetMidBlock2DCrossAttn": 2, "UNetMidBlock2D": 1, None: 0}
"""Residual blocks of each kind of middle; only a whole one attends."""
VECTOR = "projection_class_embeddings_input_dim"

VAE_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),  # Playground 2.5 has numbers for each channel
    "latents_std": (None,),
}
FLOW_FIXED: dict[str, tuple[Any, ...]] = {"use_dynamic_shifting": (False,), "shift_terminal": (None,)}
"""Settings of flow schedules that Stable Diffusion 3 does not use."""
CLIP_FIXED: dict[str, tuple[Any, ...]] = {"layer_norm_eps": (1e-5,)}

BETA_KINDS = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}


def unet_config(config: Config, where: Path) -> UNetConfig:
    """`unet/config.json` -> `UNetConfig`; BrokenModel names a setting that we do not have."""
    check_fixed(config, UNET_FIXED, where)
    channels = tuple(_need(config, "block_out_channels", where))
    down, up = _need(config, "down_block_types", where), _need(config, "up_block_types", where)
    attends = [kind == "CrossAttnDownBlock2D" for kind in down]
    mirrored = ["CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)]
    if any(kind not in ("CrossAttnDownBlock2D", "DownBlock2D") for kind in down) or list(up) != mirrored:
        raise BrokenModel(f"{where} has the blocks {list(down)} and {list(up)}, which this version does not run")
    depth = _per_stage(config.get("transformer_layers_per_block", 1), len(channels))
    reverse = config.get("reverse_transformer_layers_per_block")
    middle = config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    if middle not in MID_BLOCKS:
        raise BrokenModel(f"{where} has mid_block_type {middle!r}, which this version does not run")
    # diffusers reads `attention_head_dim` as the number of heads unless `num_attention_heads` is given
    heads = config.get("num_attention_heads")
    if heads is None:
        heads = config.get("attention_head_dim", 8)
    return UNetConfig(
        in_channels=_need(config, "in_channels", where),
        out_channels=_need(config, "out_channels", where),
        channels=channels,
        blocks_per_stage=_tuple(config.get("layers_per_block", 2)),
        transformer_depth=_where(attends, depth),
        up_depth=None if reverse is None else _where(attends, _per_stage(reverse, len(channels))[::-1]),
        mid_depth=depth[-1] if MID_BLOCKS[middle] == 2 else 0,
        mid_blocks=MID_BLOCKS[middle],
        vector_dim=_need(config, VECTOR, where) if config.get("addition_embed_type") else None,
        guidance_dim=config.get("time_cond_proj_dim"),
        heads=_tuple(heads),
        context_dim=_need(config, "cross_attention_dim", where),
        linear_projection=bool(config.get("use_linear_projection", False)),
        upcast_attention=bool(config.get("upcast_attention", False)),
        groups=config.get("norm_num_groups", 32),
    )


def size_numbers(config: Config, clip: CLIPTextConfig, where: Path) -> int:
    """How many numbers on size `unet/config.json` expects beside the pooled text: 6, 5 (the refiner) or 0."""
    if config.get("addition_embed_type") is None:
        return 0
    pooled, width = clip.projection_dim or 0, _need(config, "addition_time_embed_dim", where)
    count, rest = divmod(_need(config, VECTOR, where) - pooled, width)
    if rest or count not in (5, 6) or not pooled:
        raise BrokenModel(
            f"{where} has {VECTOR} {config[VECTOR]}; expected {pooled} of the text and 5 or 6 times {width} of sizes"
        )
    return int(count)


def vae_config(config: Config, where: Path) -> VAEConfig:
    """`vae/config.json` -> `VAEConfig`."""
    check_fixed(config, VAE_FIXED, where)
    quant, post = config.get("use_quant_conv", True), config.get("use_post_quant_conv", True)
    if quant != post or config.get("in_channels", 3) != config.get("out_channels", 3):
        raise BrokenModel(f"{where} describes an autoencoder with two different sides, which this version does not run")
    return VAEConfig(
        image_channels=config.get("in_channels", 3),
        latent_channels=config.get("latent_channels", 4),
        channels=tuple(_need(config, "block_out_channels", where)),
        blocks_per_stage=config.get("layers_per_block", 1),
        mid_attention=config.get("mid_block_add_attention", True),
        quant_conv=quant,
        groups=config.get("norm_num_groups", 32),
    )


def latent_format(config: Config, vae: VAEConfig) -> LatentFormat:
    """`vae/config.json` -> latent space; preview factors only where it is a known one."""
    scale, shift = config.get("scaling_factor"), config.get("shift_factor")
    scale = SD_LATENTS.scale if scale is None else scale
    shift = 0.0 if shift is None else shift
    for known in (SD_LATENTS, XL_LATENTS, SD3_LATENTS):
        if (vae.latent_channels, vae.downscale, scale, shift) == (known.channels, 8, known.scale, known.shift):
            return known
    found = LatentFormat(channels=vae.latent_channels, downscale=vae.downscale, scale=scale, shift=shift)
    check_latent_numbers(found)
    return found


def clip_config(config: Config, where: Path, *, projection: bool) -> CLIPTextConfig:
    """`text_encoder/config.json` -> `CLIPTextConfig`; `projection` says whether the weights have one."""
    check_fixed(config, CLIP_FIXED, where)
    vocabulary = config.get("vocab_size", 49408)
    end = config.get("eos_token_id", vocabulary - 1)
    return CLIPTextConfig(
        vocab_size=vocabulary,
        width=_need(config, "hidden_size", where),
        layers=_need(config, "num_hidden_layers", where),
        heads=_need(config, "num_attention_heads", where),
        mlp_width=_need(config, "intermediate_size", where),
        context_length=config.get("max_position_embeddings", 77),
        activation=config.get("hidden_act", "quick_gelu"),
        projection_dim=config.get("projection_dim", 512) if projection else None,
        # Old configs say 2, by mistake; transformers then takes the highest id of the text, which is the end token.
        eos_token_id=vocabulary - 1 if end is None or end == 2 else end,
    )


def noise_schedule(config: Config, where: Path) -> tuple[DiscreteSchedule | FlowSchedule, Prediction]:
    """`scheduler/scheduler_config.json` -> noise schedule and prediction; which sampler it names does not matter."""
    with using_config(where):
        kind = str(config.get("_class_name", ""))
        if kind.startswith("EDM"):
            raise UnknownModel(
                f"{where} has the scheduler {brief(kind)} of a model with continuous noise levels of its own "
                "(Playground 2.5, CosXL), which this version does not run"
            )
        if "FlowMatch" in kind:
            check_fixed(config, FLOW_FIXED, where)
            return FlowSchedule(config.get("shift", 1.0), config.get("num_train_timesteps", 1000)), "flow"
        prediction = resolve_prediction(config.get("prediction_type", "epsilon"))
        zero_snr = bool(config.get("rescale_betas_zero_snr", False))
        if config.get("trained_betas") is not None:
            abar = torch.cumprod(1 - torch.tensor(config["trained_betas"], dtype=torch.float64), dim=0)
            return DiscreteSchedule(rescale_zero_terminal_snr(abar) if zero_snr else abar), prediction
        betas = config.get("beta_schedule", "linear")
        if betas not in BETA_KINDS:
            raise BrokenModel(f"{where} has beta_schedule {betas!r}; known are {', '.join(BETA_KINDS)}")
        schedule = ddpm_schedule(
            BETA_KINDS[betas],  # type: ignore[arg-type]
            beta_start=config.get("beta_start", 0.0001),
            beta_end=config.get("beta_end", 0.02),
            steps=config.get("num_train_timesteps", 1000),
            zero_terminal_snr=zero_snr,
        )
        return schedule, prediction


def check_fixed(config: Config, fixed: Mapping[str, tuple[Any, ...]], where: Path) -> None:
    """BrokenModel where a setting has another value than those that we run (the first is the default)."""
    for name, allowed in fixed.items():
        if config.get(name, allowed[0]) not in allowed:
            raise BrokenModel(f"{where} has {name} {repr(config[name])[:80]}; this version runs {allowed[0]!r} only")


def _need(config: Config, name: str, where: Path) -> Any:
    if config.get(name) is None:
        raise BrokenModel(f"{where} does not say {name}")
    return config[name]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _where(attends: list[bool], depth: tuple[Any, ...]) -> tuple[Any, ...]:
    """Depths of the stages that attend, 0 for the others."""
    return tuple(tuples(count) if attend else 0 for count, attend in zip(depth, attends, strict=True))


def _per_stage(value: Any, stages: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list) else (value,) * stages
