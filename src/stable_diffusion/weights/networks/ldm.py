"""Key tables of the LDM layout: the single files of Stable Diffusion 1 and 2 (and of the SDXL U-Net).

Names are those below `model.diffusion_model.` (U-Net) and `first_stage_model.` (autoencoder). Sources: the released
code of Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models", and of Podell et al. 2023,
"SDXL".
"""

from __future__ import annotations

from collections.abc import Iterator

from ...models.unet import UNetConfig, UNetStage
from ...models.vae import VAEConfig, VAEStage
from ..keys import KeyTable, Op, Rule, module, modules, resblock, spatial_transformer

UNET_RESBLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip": "skip_connection",
}
GUIDANCE, GUIDANCE_LDM = "time_embedding.cond_proj", "time_embed.cond_proj.weight"
VAE_RESBLOCK = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "skip": "nin_shortcut"}


def unet_ldm(config: UNetConfig) -> KeyTable:
    """`input_blocks`, `middle_block` and `output_blocks`, which number residual blocks and resamplings in a row."""
    rules = (*encoder_ldm(config), *_up(config), *modules("", "out", {"norm_out": "0", "conv_out": "2"}))
    if config.guidance_dim is None:
        return KeyTable(rules)
    # converters have no name of this layout for it and leave diffusers' as it is
    return KeyTable((*rules, *module("guidance_proj", GUIDANCE, bias=False)), {GUIDANCE_LDM: f"{GUIDANCE}.weight"})


def encoder_ldm(config: UNetConfig) -> Iterator[Rule]:
    """The way down and the middle, which ControlNets have as well."""
    yield from modules("time_mlp", "time_embed", {"linear1": "0", "linear2": "2"})
    if config.vector_dim is not None:
        yield from modules("vector_mlp", "label_emb.0", {"linear1": "0", "linear2": "2"})
    yield from module("conv_in", "input_blocks.0.0")
    yield from _down(config)
    yield from _mid(config)


def _down(config: UNetConfig) -> Iterator[Rule]:
    number = 1  # input block 0 is conv_in
    for index, stage in enumerate(config.down_stages()):
        for block in range(len(stage.blocks)):
            yield from _block(config, stage, f"down.{index}", block, f"input_blocks.{number}")
            number += 1
        if stage.resample:
            yield from module(f"down.{index}.downsample.conv", f"input_blocks.{number}.0.op")
            number += 1


def _mid(config: UNetConfig) -> Iterator[Rule]:
    stage = config.mid_stage()
    if stage.attends:
        linear = config.linear_projection
        yield from spatial_transformer("mid.transformer", "middle_block.1", stage.depths[0], linear=linear)
    for block, channels in enumerate(stage.blocks):  # the second stands after the transformer if there is one
        place = block if not stage.attends else 2 * block
        yield from resblock(f"mid.resblock{block + 1}", f"middle_block.{place}", UNET_RESBLOCK, channels)


def _up(config: UNetConfig) -> Iterator[Rule]:
    number = 0
    for index, stage in enumerate(config.up_stages()):
        for block in range(len(stage.blocks)):
            yield from _block(config, stage, f"up.{index}", block, f"output_blocks.{number}")
            number += 1
        if stage.resample:  # stands in the last block of the stage, after its transformer if it has one
            place = 2 if stage.attends else 1
            yield from module(f"up.{index}.upsample.conv", f"output_blocks.{number - 1}.{place}.conv")


def _block(config: UNetConfig, stage: UNetStage, ours: str, block: int, theirs: str) -> Iterator[Rule]:
    """A residual block and its transformer."""
    yield from resblock(f"{ours}.resblocks.{block}", f"{theirs}.0", UNET_RESBLOCK, stage.blocks[block])
    if stage.attends:
        depth, linear = stage.depths[block], config.linear_projection
        yield from spatial_transformer(f"{ours}.transformers.{block}", f"{theirs}.1", depth, linear=linear)


def vae_ldm(config: VAEConfig) -> KeyTable:
    """`encoder.down` and `decoder.up` are both numbered from the finest stage; attention has 1x1 convolutions."""
    rules: list[Rule] = []
    if config.quant_conv:
        rules += modules("", "", {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"})
    for index, stage in enumerate(config.encoder_stages()):
        rules += _vae_stage(stage, f"encoder.stages.{index}", f"encoder.down.{index}", "downsample")
    for index, stage in enumerate(config.decoder_stages()):
        theirs = f"decoder.up.{len(config.channels) - 1 - index}"
        rules += _vae_stage(stage, f"decoder.stages.{index}", theirs, "upsample")
    for side, width in (("encoder", config.channels[-1]), ("decoder", config.decoder_stages()[0].channels)):
        rules += modules(side, side, {"conv_in": "conv_in", "norm_out": "norm_out", "conv_out": "conv_out"})
        rules += _vae_mid(config, side, width)
    return KeyTable(tuple(rules))


def _vae_stage(stage: VAEStage, ours: str, theirs: str, resample: str) -> Iterator[Rule]:
    for block, channels in enumerate(stage.blocks):
        yield from resblock(f"{ours}.resblocks.{block}", f"{theirs}.block.{block}", VAE_RESBLOCK, channels)
    if stage.resample:
        yield from module(f"{ours}.{resample}.conv", f"{theirs}.{resample}.conv")


def _vae_mid(config: VAEConfig, side: str, width: int) -> Iterator[Rule]:
    for number in (1, 2):
        ours, theirs = f"{side}.mid.resblock{number}", f"{side}.mid.block_{number}"
        yield from resblock(ours, theirs, VAE_RESBLOCK, (width, width))
    if config.mid_attention:
        ours, theirs = f"{side}.mid.attention", f"{side}.mid.attn_1"
        yield from module(f"{ours}.norm", f"{theirs}.norm")
        for our_name, their_name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "proj_out")):
            yield from module(f"{ours}.attention.{our_name}", f"{theirs}.{their_name}", Op.SQUEEZE)
