"""Our configs in the words of a diffusers folder: the inverse of `folder_configs`.

What is written is read back and compared, so that a network that those words cannot describe is an error and never a
folder that loads as something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...diffusion.prediction import Prediction
from ...errors import BrokenModel, InvalidRequest
from ...models.clip import CLIPTextConfig
from ...models.unet import UNetConfig
from ...models.vae import VAEConfig
from ..parts import Parts
from .few_step import NOTE, is_quick, quick_note
from .folder_configs import VECTOR, noise_schedule, unet_config, vae_config
from .save_configs_sd3 import flow_words

Config = dict[str, Any]

VERSION = "0.30.0"
"""The `_diffusers_version` of what is written: a version that knows every setting in it."""
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
BETAS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
FEW_STEPS = {
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",
    "ddim": "DDIMScheduler",
    "tcd": "TCDScheduler",
}
"""Schedulers of models distilled to a few steps, by the sampler that they are run with."""


def unet_words(config: UNetConfig, *, pooled: int | None, size_numbers: int, size: int) -> Config:
    """`unet/config.json`. `size` is the side of the latents; `pooled` the width of the text's vector, if it is used."""
    stages = range(len(config.channels))
    down, up = config.down_stages(), config.up_stages()
    depth = [_depth(stage.depths) if stage.attends else config.mid_stage().depths[0] or 1 for stage in down]
    heads = [config.heads_at(stage) for stage in stages]
    words: Config = {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": VERSION,
        "sample_size": size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": list(config.channels),
        "layers_per_block": _depth(config.block_counts()),
        "down_block_types": ["CrossAttnDownBlock2D" if stage.attends else "DownBlock2D" for stage in down],
        "up_block_types": ["CrossAttnUpBlock2D" if stage.attends else "UpBlock2D" for stage in up],
        "mid_block_type": _middle(config),
        "transformer_layers_per_block": _one(depth),
        "cross_attention_dim": config.context_dim,
        "attention_head_dim": _one(heads),  # this setting means the number of heads in diffusers
        "use_linear_projection": config.linear_projection,
        "upcast_attention": config.upcast_attention,
        "norm_num_groups": config.groups,
        "norm_eps": 1e-05,
        "act_fn": "silu",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }
    if config.guidance_dim is not None:
        words["time_cond_proj_dim"] = config.guidance_dim
    if config.up_depth is not None:
        words["reverse_transformer_layers_per_block"] = [_depth(stage.depths) or 1 for stage in up]
    if size_numbers:
        words |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": ((config.vector_dim or 0) - (pooled or 0)) // size_numbers,
            VECTOR: config.vector_dim,
        }
    _check_unet(config, words)
    return words


def _middle(config: UNetConfig) -> str | None:
    if config.mid_stage().attends:
        return "UNetMidBlock2DCrossAttn"
    return "UNetMidBlock2D" if config.mid_blocks else None


def _depth(depths: tuple[int, ...]) -> int | list[int]:
    return _one(list(depths))  # type: ignore[no-any-return]


def _one(values: list[Any]) -> Any:
    """One value where all are equal."""
    return values[0] if all(value == values[0] for value in values) else values


def _check_unet(config: UNetConfig, words: Config) -> None:
    """InvalidRequest where diffusers' words, read back, describe another network."""
    read = unet_config(words, Path("unet/config.json"))
    for what in ("down_stages", "mid_stage", "up_stages"):
        if getattr(read, what)() != getattr(config, what)():
            raise InvalidRequest(f"a diffusers folder has no words for this U-Net: its {what} would be another")
    if config.vector_dim != read.vector_dim:
        raise InvalidRequest("a diffusers folder has no words for this U-Net: it takes a vector that is not of sizes")


def vae_words(config: VAEConfig, parts: Parts) -> Config:
    """`vae/config.json`."""
    stages = len(config.channels)
    latents = parts.latents
    words: Config = {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": VERSION,
        "sample_size": parts.defaults.width,
        "in_channels": config.image_channels,
        "out_channels": config.image_channels,
        "latent_channels": config.latent_channels,
        "block_out_channels": list(config.channels),
        "down_block_types": ["DownEncoderBlock2D"] * stages,
        "up_block_types": ["UpDecoderBlock2D"] * stages,
        "layers_per_block": config.blocks_per_stage,
        "norm_num_groups": config.groups,
        "act_fn": "silu",
        "scaling_factor": latents.scale,
        "use_quant_conv": config.quant_conv,
        "use_post_quant_conv": config.quant_conv,
        "mid_block_add_attention": config.mid_attention,
        "force_upcast": bool(parts.size_numbers),  # the autoencoder of XL overflows in float16
    }
    if latents.shift:
        words["shift_factor"] = latents.shift
    read = vae_config(words, Path("vae/config.json"))
    same = (read.encoder_stages(), read.decoder_stages()) == (config.encoder_stages(), config.decoder_stages())
    if not same or config.patch_size != 1 or isinstance(latents.scale, tuple):
        raise InvalidRequest("a diffusers folder has no words for this autoencoder: its two sides are not alike")
    return words


def clip_words(config: CLIPTextConfig, *, projected: bool, pad_token_id: int | None) -> Config:
    """`text_encoder/config.json`, for transformers' CLIPTextModel (or CLIPTextModelWithProjection)."""
    return {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.context_length,
        "hidden_act": config.activation,
        "projection_dim": config.width if config.projection_dim is None else config.projection_dim,
        "layer_norm_eps": 1e-05,
        "bos_token_id": config.eos_token_id - 1,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": 1 if pad_token_id is None else pad_token_id,
    }


def scheduler_words(parts: Parts) -> Config:
    """`scheduler/scheduler_config.json`: the noise schedule and prediction, and how the model likes to be sampled."""
    return with_note(_scheduler_words(parts), parts)


def with_note(words: Config, parts: Parts) -> Config:
    """A scheduler_config.json that also says how a model of few steps is run, which no scheduler's fields can."""
    note = quick_note(parts.defaults)
    return words if note is None else {**words, NOTE: note}


def _scheduler_words(parts: Parts) -> Config:
    told = parts.schedule.to_config()  # type: ignore[attr-defined]  # of our own schedules
    if told.get("kind") == "flow" and parts.prediction == "flow":
        return flow_words(told, version=VERSION)
    if told.get("kind") not in BETAS or parts.prediction not in PREDICTIONS:
        raise InvalidRequest(
            f"a noise schedule of kind {told.get('kind')!r} cannot be written as a diffusers scheduler"
        )
    zero = bool(told["zero_terminal_snr"])
    name, spacing = _scheduler(parts, zero)
    words: Config = {
        "_class_name": name,
        "_diffusers_version": VERSION,
        "beta_schedule": BETAS[told["kind"]],
        "beta_start": told["beta_start"],
        "beta_end": told["beta_end"],
        "num_train_timesteps": told["steps"],
        "prediction_type": PREDICTIONS[parts.prediction],
        "timestep_spacing": spacing,
        "steps_offset": 1,
    }
    if zero:
        words["rescale_betas_zero_snr"] = True
    if name in ("PNDMScheduler", "DDIMScheduler"):
        words["set_alpha_to_one"] = is_quick(parts.defaults)  # a step of few ends without noise
    if name == "LCMScheduler" and parts.defaults.schedule != "lcm":
        words["original_inference_steps"] = told["steps"]  # so that its timesteps are the trailing ones
    if name in ("DDIMScheduler", "LCMScheduler", "TCDScheduler"):
        words["clip_sample"] = False
    if name == "PNDMScheduler":
        words["skip_prk_steps"] = True
    _check_schedule(parts.schedule.sigma_max, parts.prediction, words)
    return words


def _scheduler(parts: Parts, zero: bool) -> tuple[str, str]:
    """(class, spacing of timesteps): those of the released folders of each family."""
    if is_quick(parts.defaults):
        return FEW_STEPS.get(parts.defaults.sampler, "EulerDiscreteScheduler"), "trailing"
    if parts.size_numbers or zero:
        return "EulerDiscreteScheduler", "trailing" if zero else "leading"
    return ("DDIMScheduler" if parts.prediction == "v" else "PNDMScheduler"), "leading"


def _check_schedule(sigma_max: float, prediction: Prediction, words: Config) -> None:
    try:
        schedule, read = noise_schedule(words, Path("scheduler/scheduler_config.json"))
    except BrokenModel as error:
        raise InvalidRequest(f"the noise schedule cannot be written as a diffusers scheduler: {error}") from error
    assert read == prediction and abs(schedule.sigma_max - sigma_max) <= 1e-9 * sigma_max
