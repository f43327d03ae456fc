"""The autoencoder: the config that its tensors tell, its key tables, its settings as diffusers writes them, and the
latent spaces of the released ones.

In single files (`first_stage_model.`) `encoder.down` and `decoder.up` are both numbered from the finest stage, and the
attention in the middle has 1x1 convolutions; in the folder `vae/` the stages of both sides are numbered as they run.

Sources: the released code of Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models"; the
module tree and the documented configuration fields of diffusers' AutoencoderKL, as its checkpoints name them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import BrokenModel, InvalidRequest
from ...latents import LatentFormat
from ...models.vae import VAEConfig, VAEStage
from ..containers.limits import check_latent_numbers
from ..keys import KeyTable, Op, Rule, module, modules, resblock
from .layout import Layout, Shapes, layouts, length, marks, need
from .words import VERSION, Fixed, Word, Words, check_fixed, constant, read_words, write_words

SD_LATENTS = LatentFormat(
    channels=4,
    downscale=8,
    scale=0.18215,
    preview=((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473)),
)
"""The latent space of Stable Diffusion 1 and 2; preview factors as published by the community for its 4 channels."""
XL_LATENTS = LatentFormat(
    channels=4,
    downscale=8,
    scale=0.13025,
    preview=((0.392, 0.405, 0.455), (-0.263, -0.02, 0.065), (0.057, 0.169, -0.076), (-0.311, -0.236, -0.208)),
)
"""The latent space of Stable Diffusion XL; preview factors as published by the community."""
SD3_LATENTS = LatentFormat(
    channels=16,
    downscale=8,
    scale=1.5305,
    shift=0.0609,
    preview=(
        (-0.0922, -0.0175, 0.0749), (0.0311, 0.0633, 0.0954), (0.1994, 0.0927, 0.0458), (0.0856, 0.0339, 0.0902),
        (0.0587, 0.0272, -0.0496), (-0.0006, 0.1104, 0.0309), (0.0978, 0.0306, 0.0427), (-0.0042, 0.1038, 0.1358),
        (-0.0194, 0.002, 0.0669), (-0.0488, 0.013, -0.0268), (0.0922, 0.0988, 0.0951), (-0.0278, 0.0524, -0.0542),
        (0.0332, 0.0456, 0.0895), (-0.0069, -0.003, -0.081), (-0.0596, -0.0465, -0.0293), (-0.1448, -0.1463, -0.1189),
    ),
    preview_bias=(0.2394, 0.2135, 0.1925),
)  # fmt: skip
"""The latent space of Stable Diffusion 3; preview factors as published by the community for its 16 channels."""

NORMALISED = 0.5
"""Standard deviation of the latents of Playground 2.5 (its `scaling_factor`), whose file has means and deviations."""

VAE_LEFTOVERS = ("loss.", "model_ema.")
"""Tensors of the autoencoder's training (discriminator, averages) that some files still carry."""


@dataclass(frozen=True, kw_only=True)
class VAENames:
    """How one layout names the pieces of both sides; `{}` is a number."""

    stage: dict[str, str]
    block: str
    resample: str
    mid_block: str
    first_mid: int
    mid_attention: str
    attention_norm: str
    attention: dict[str, str]
    attention_op: Op
    skip: str
    ends: dict[str, str]
    decoder_reversed: bool = False


LDM = VAENames(
    stage={"encoder": "down.{}", "decoder": "up.{}"},
    block="block.{}",
    resample="{}.conv",
    mid_block="mid.block_{}",
    first_mid=1,
    mid_attention="mid.attn_1",
    attention_norm="norm",
    attention={"query": "q", "key": "k", "value": "v", "out": "proj_out"},
    attention_op=Op.SQUEEZE,
    skip="nin_shortcut",
    ends={"conv_in": "conv_in", "norm_out": "norm_out", "conv_out": "conv_out"},
    decoder_reversed=True,
)
DIFFUSERS = VAENames(
    stage={"encoder": "down_blocks.{}", "decoder": "up_blocks.{}"},
    block="resnets.{}",
    resample="{}rs.0.conv",
    mid_block="mid_block.resnets.{}",
    first_mid=0,
    mid_attention="mid_block.attentions.0",
    attention_norm="group_norm",
    attention={"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"},
    attention_op=Op.SAME,
    skip="conv_shortcut",
    ends={"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"},
)
OLD_VAE_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""How diffusers before 0.17 named the layers of the attention."""


def vae_ldm(config: VAEConfig) -> KeyTable:
    """Single files, below `first_stage_model.`."""
    return KeyTable(tuple(_vae_rules(config, LDM)))


def vae_diffusers(config: VAEConfig) -> KeyTable:
    """`vae/`. Old names of the attention are accepted."""
    old = {
        f"{side}.{DIFFUSERS.mid_attention}.{old}.{part}": f"{side}.{DIFFUSERS.mid_attention}.{new}.{part}"
        for side in ("encoder", "decoder")
        for new, old in OLD_VAE_ATTENTION.items()
        for part in ("weight", "bias")
    }
    return KeyTable(tuple(_vae_rules(config, DIFFUSERS)), old if config.mid_attention else {})


def _vae_rules(config: VAEConfig, names: VAENames) -> Iterator[Rule]:
    if config.quant_conv:
        yield from modules("", "", {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"})
    sides = (("encoder", "downsample", config.encoder_stages()), ("decoder", "upsample", config.decoder_stages()))
    for side, resample, stages in sides:
        for index, stage in enumerate(stages):
            number = len(config.channels) - 1 - index if names.decoder_reversed and side == "decoder" else index
            theirs = f"{side}.{names.stage[side].format(number)}"
            yield from _vae_stage(stage, f"{side}.stages.{index}", theirs, resample, names)
    for side, width in (("encoder", config.channels[-1]), ("decoder", config.decoder_stages()[0].channels)):
        yield from modules(side, side, names.ends)
        yield from _vae_middle(config, side, width, names)


def _vae_stage(stage: VAEStage, ours: str, theirs: str, resample: str, names: VAENames) -> Iterator[Rule]:
    for block, channels in enumerate(stage.blocks):
        yield from _vae_block(f"{ours}.resblocks.{block}", f"{theirs}.{names.block.format(block)}", channels, names)
    if stage.resample:
        yield from module(f"{ours}.{resample}.conv", f"{theirs}.{names.resample.format(resample)}")


def _vae_block(ours: str, theirs: str, channels: tuple[int, int], names: VAENames) -> Iterator[Rule]:
    same = {name: name for name in ("norm1", "conv1", "norm2", "conv2")}
    yield from resblock(ours, theirs, {**same, "skip": names.skip}, channels)


def _vae_middle(config: VAEConfig, side: str, width: int, names: VAENames) -> Iterator[Rule]:
    for block in (0, 1):
        theirs = f"{side}.{names.mid_block.format(block + names.first_mid)}"
        yield from _vae_block(f"{side}.mid.resblock{block + 1}", theirs, (width, width), names)
    if config.mid_attention:
        ours, theirs = f"{side}.mid.attention", f"{side}.{names.mid_attention}"
        yield from module(f"{ours}.norm", f"{theirs}.{names.attention_norm}")
        for our_name, their_name in names.attention.items():
            yield from module(f"{ours}.attention.{our_name}", f"{theirs}.{their_name}", names.attention_op)


# --- the config ------------------------------------------------------------------------------------------------------


def vae_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `VAEConfig` from the layout of single files."""
    return _fields_of(shapes, LDM, "encoder.mid.attn_1.q.weight")


def vae_fields_diffusers(shapes: Shapes) -> dict[str, Any]:
    """Fields of `VAEConfig` from the layout of diffusers."""
    attention = f"encoder.{DIFFUSERS.mid_attention}"
    return _fields_of(shapes, DIFFUSERS, f"{attention}.to_q.weight", f"{attention}.query.weight")


def _fields_of(shapes: Shapes, names: VAENames, *attention: str) -> dict[str, Any]:
    encoder, decoder = (f"{side}.{names.stage[side].format(0)}" for side in ("encoder", "decoder"))
    channels, up = (_channels(shapes, stage.removesuffix(".0"), names.block) for stage in (encoder, decoder))
    up = up if names.decoder_reversed else up[::-1]
    if not channels and names is LDM:
        raise BrokenModel("the autoencoder has no encoder.down.0, so its shape cannot be determined")
    blocks = names.block.removesuffix(".{}")
    return {
        "image_channels": need(shapes, "encoder.conv_in.weight")[1],
        "latent_channels": need(shapes, "decoder.conv_in.weight")[1],
        "channels": channels,
        "decoder_channels": None if up == channels else up,
        "blocks_per_stage": length(shapes, f"{encoder}.{blocks}"),
        "decoder_blocks": length(shapes, f"{decoder}.{blocks}"),
        "mid_attention": any(name in shapes for name in attention),
        "quant_conv": "quant_conv.weight" in shapes,
    }


def _channels(shapes: Shapes, stages: str, block: str) -> tuple[int, ...]:
    """The channels of each stage under `stages`, from the first convolution of its first residual block."""
    first = block.format(0)
    return tuple(need(shapes, f"{stages}.{stage}.{first}.conv1.weight")[0] for stage in range(length(shapes, stages)))


VAE_LAYOUTS = layouts(
    Layout("diffusers", marks("encoder.down_blocks.0.resnets.0.conv1.weight"), vae_fields_diffusers, vae_diffusers),
    Layout("ldm", marks("encoder.down.0.block.0.conv1.weight"), vae_fields, vae_ldm),
)


# --- diffusers' words ------------------------------------------------------------------------------------------------

VAE_WORDS = (
    Word("in_channels", "image_channels", 3),
    Word("out_channels", lambda config: config.image_channels),
    Word("latent_channels", "latent_channels", 4),
    Word("block_out_channels", "channels", kind="list"),
    Word("down_block_types", lambda config: ["DownEncoderBlock2D"] * len(config.channels)),
    Word("up_block_types", lambda config: ["UpDecoderBlock2D"] * len(config.channels)),
    Word("layers_per_block", "blocks_per_stage", 1),
    Word("norm_num_groups", "groups", 32),
    constant("act_fn", "silu"),
    constant("scaling_factor", SD_LATENTS.scale),
    Word("use_quant_conv", "quant_conv", True),
    Word("use_post_quant_conv", lambda config: config.quant_conv),
    Word("mid_block_add_attention", "mid_attention", True),
)
FIXED: Fixed = {
    "act_fn": ("silu", "swish"),
}


def vae_from_words(words: Words, where: Path) -> VAEConfig:
    """`vae/config.json` -> `VAEConfig`; BrokenModel names a setting that we do not have."""
    check_fixed(words, FIXED, where)
    quant, post = words.get("use_quant_conv", True), words.get("use_post_quant_conv", True)
    if quant != post or words.get("in_channels", 3) != words.get("out_channels", 3):
        raise BrokenModel(f"{where} describes an autoencoder with two different sides, which this version does not run")
    return VAEConfig(**read_words(VAE_WORDS, words, where))


def latents_from_words(words: Words, vae: VAEConfig) -> LatentFormat:
    """`vae/config.json` -> latent space; preview factors only where it is a known one."""
    scale, shift = words.get("scaling_factor"), words.get("shift_factor")
    scale = SD_LATENTS.scale if scale is None else scale
    shift = 0.0 if shift is None else shift
    mean, std = words.get("latents_mean"), words.get("latents_std")
    if mean is not None or std is not None:
        if shift:
            raise InvalidRequest("latents_mean beside a shift_factor; one of them is expected")
        return normalised_latents(mean, std, float(scale), vae.latent_channels, vae.downscale)  # type: ignore[arg-type]
    for known in (SD_LATENTS, XL_LATENTS, SD3_LATENTS):
        if (vae.latent_channels, vae.downscale, scale, shift) == (known.channels, 8, known.scale, known.shift):
            return known
    found = LatentFormat(channels=vae.latent_channels, downscale=vae.downscale, scale=scale, shift=shift)
    check_latent_numbers(found)
    return found


def normalised_latents(mean: object, std: object, scale: float, channels: int, downscale: int = 8) -> LatentFormat:
    """Latents whose channels are brought to mean 0 and standard deviation `scale`, as Playground 2.5 has them: with
    mean m and deviation s of the autoencoder's own, latent = (vae_latent - m) * scale / s.

    Preview factors are those of XL's autoencoder, which such models have. InvalidRequest where there is not one number
    for each channel, or a deviation is not above 0.
    """
    means, stds = (_numbers(name, given, channels) for name, given in (("mean", mean), ("std", std)))
    if min(stds) <= 0:
        raise InvalidRequest(f"latents_std is {list(stds)}; expected numbers above 0")
    found = LatentFormat(
        channels=channels, downscale=downscale, scale=tuple(scale / each for each in stds), shift=means
    )
    check_latent_numbers(found)
    if channels != XL_LATENTS.channels or XL_LATENTS.preview is None:
        return found
    plain = [tuple(factor * float(XL_LATENTS.scale) for factor in row) for row in XL_LATENTS.preview]  # type: ignore[arg-type]
    rows = tuple((r * s / scale, g * s / scale, b * s / scale) for (r, g, b), s in zip(plain, stds, strict=True))
    r, g, b = (sum(row[colour] * m for row, m in zip(plain, means, strict=True)) for colour in range(3))
    return replace(found, preview=rows, preview_bias=(r, g, b))


def _numbers(name: str, given: object, channels: int) -> tuple[float, ...]:
    values = tuple(given) if isinstance(given, (list, tuple)) else ()
    numbers = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in values)
    if len(values) != channels or not numbers:
        raise InvalidRequest(f"latents_{name} is {repr(given)[:60]}; expected {channels} numbers, one for each channel")
    return tuple(float(each) for each in values)


def _latent_words(latents: LatentFormat) -> dict[str, Any]:
    """`scaling_factor` and what goes with it; the numbers of each channel come with a factor of 0.5."""
    if not isinstance(latents.scale, tuple) and not isinstance(latents.shift, tuple):
        return {"scaling_factor": latents.scale} | ({"shift_factor": latents.shift} if latents.shift else {})
    scales, shifts = (
        each if isinstance(each, tuple) else (each,) * latents.channels for each in (latents.scale, latents.shift)
    )
    stds = [NORMALISED / scale for scale in scales]
    return {"scaling_factor": NORMALISED, "latents_mean": list(shifts), "latents_std": stds}


def vae_to_words(config: VAEConfig, latents: LatentFormat, *, size: int, upcast: bool) -> dict[str, Any]:
    """`vae/config.json`. `size` is the side of a picture, and `upcast` says that it overflows in float16.

    InvalidRequest where what is written, read back, would be another autoencoder.
    """
    words = {"_class_name": "AutoencoderKL", "_diffusers_version": VERSION, "sample_size": size}
    words |= write_words(VAE_WORDS, config) | _latent_words(latents) | {"force_upcast": upcast}
    read = vae_from_words(words, Path("vae/config.json"))
    same = (read.encoder_stages(), read.decoder_stages()) == (config.encoder_stages(), config.decoder_stages())
    if not same or config.patch_size != 1:
        raise InvalidRequest("a diffusers folder has no words for this autoencoder: its two sides are not alike")
    return words
