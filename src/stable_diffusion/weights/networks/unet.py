"""The U-Net: the config that its tensors tell, its key tables, and its settings as diffusers writes them.

Single files (LDM, below `model.diffusion_model.`) number residual blocks and resamplings in a row, as `input_blocks`,
`middle_block` and `output_blocks`; the folder `unet/` has them by stages.

Sources: the released code of Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models", and
of Podell et al. 2023, "SDXL"; the module tree of diffusers' UNet2DConditionModel, as its checkpoints name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ...errors import BrokenModel
from ...models.config import per_stage
from ...models.unet import UNetConfig, UNetStage
from ..keys import KeyTable, Rule, module, modules, resblock, spatial_transformer
from .layout import Layout, Shapes, layouts, length, marks, need

LDM_RESBLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip": "skip_connection",
}
DIFFUSERS_RESBLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "skip": "conv_shortcut",
    "time": "time_emb_proj",
}
EMBEDDING_MLP = {"linear1": "linear_1", "linear2": "linear_2"}
GUIDANCE, GUIDANCE_LDM = "time_embedding.cond_proj", "time_embed.cond_proj.weight"
"""What the guidance scale passes through; converters have no name of the layout of single files for it and leave
diffusers' as it is."""
VECTORS = ("label_emb.0.0.weight", "add_embedding.linear_1.weight", "class_embedding.linear_1.weight")
"""First layer of what the vector passes through, in the LDM layout and in that of diffusers."""


# --- single files ----------------------------------------------------------------------------------------------------


def unet_ldm(config: UNetConfig) -> KeyTable:
    """`input_blocks`, `middle_block` and `output_blocks`."""
    rules = (*encoder_ldm(config), *_ldm_up(config), *modules("", "out", {"norm_out": "0", "conv_out": "2"}))
    if config.guidance_dim is None:
        return KeyTable(rules)
    return KeyTable((*rules, *module("guidance_proj", GUIDANCE, bias=False)), {GUIDANCE_LDM: f"{GUIDANCE}.weight"})


def encoder_ldm(config: UNetConfig) -> Iterator[Rule]:
    """The way down and the middle, which ControlNets have as well."""
    yield from modules("time_mlp", "time_embed", {"linear1": "0", "linear2": "2"})
    if config.vector_dim is not None:
        yield from modules("vector_mlp", "label_emb.0", {"linear1": "0", "linear2": "2"})
    yield from module("conv_in", "input_blocks.0.0")
    number = 1  # input block 0 is conv_in
    for index, stage in enumerate(config.down_stages()):
        for block in range(len(stage.blocks)):
            yield from _ldm_block(config, stage, f"down.{index}", block, f"input_blocks.{number}")
            number += 1
        if stage.resample:
            yield from module(f"down.{index}.downsample.conv", f"input_blocks.{number}.0.op")
            number += 1
    middle = config.mid_stage()
    if middle.attends:
        linear = config.linear_projection
        yield from spatial_transformer("mid.transformer", "middle_block.1", middle.depths[0], linear=linear)
    for block, channels in enumerate(middle.blocks):  # the second stands after the transformer if there is one
        place = block if not middle.attends else 2 * block
        yield from resblock(f"mid.resblock{block + 1}", f"middle_block.{place}", LDM_RESBLOCK, channels)


def _ldm_up(config: UNetConfig) -> Iterator[Rule]:
    number = 0
    for index, stage in enumerate(config.up_stages()):
        for block in range(len(stage.blocks)):
            yield from _ldm_block(config, stage, f"up.{index}", block, f"output_blocks.{number}")
            number += 1
        if stage.resample:  # stands in the last block of the stage, after its transformer if it has one
            place = 2 if stage.attends else 1
            yield from module(f"up.{index}.upsample.conv", f"output_blocks.{number - 1}.{place}.conv")


def _ldm_block(config: UNetConfig, stage: UNetStage, ours: str, block: int, theirs: str) -> Iterator[Rule]:
    """A residual block and its transformer."""
    yield from resblock(f"{ours}.resblocks.{block}", f"{theirs}.0", LDM_RESBLOCK, stage.blocks[block])
    if stage.attends:
        depth, linear = stage.depths[block], config.linear_projection
        yield from spatial_transformer(f"{ours}.transformers.{block}", f"{theirs}.1", depth, linear=linear)


# --- diffusers -------------------------------------------------------------------------------------------------------


def unet_diffusers(config: UNetConfig) -> KeyTable:
    """`unet/`; the vector's MLP is `add_embedding`, or `class_embedding` in models conditioned on image vectors."""
    rules = [*encoder_diffusers(config), *_diffusers_side("up", "upsample", config.up_stages(), config)]
    rules += modules("", "", {"norm_out": "conv_norm_out", "conv_out": "conv_out"})
    if config.guidance_dim is not None:
        rules += module("guidance_proj", GUIDANCE, bias=False)
    vector = [name for rule in rules for name in rule.theirs if name.startswith("add_embedding.")]
    return KeyTable(tuple(rules), {name.replace("add_", "class_", 1): name for name in vector})


def encoder_diffusers(config: UNetConfig) -> Iterator[Rule]:
    """The way down and the middle, which ControlNets have as well."""
    yield from module("conv_in", "conv_in")
    yield from modules("time_mlp", "time_embedding", EMBEDDING_MLP)
    if config.vector_dim is not None:
        yield from modules("vector_mlp", "add_embedding", EMBEDDING_MLP)
    yield from _diffusers_side("down", "downsample", config.down_stages(), config)
    middle = config.mid_stage()
    for block, channels in enumerate(middle.blocks):
        yield from resblock(f"mid.resblock{block + 1}", f"mid_block.resnets.{block}", DIFFUSERS_RESBLOCK, channels)
    if middle.attends:
        depth, linear = middle.depths[0], config.linear_projection
        yield from spatial_transformer("mid.transformer", "mid_block.attentions.0", depth, linear=linear)


def _diffusers_side(side: str, resample: str, stages: Iterable[UNetStage], config: UNetConfig) -> Iterator[Rule]:
    for index, stage in enumerate(stages):
        ours, theirs = f"{side}.{index}", f"{side}_blocks.{index}"
        for block, channels in enumerate(stage.blocks):
            yield from resblock(f"{ours}.resblocks.{block}", f"{theirs}.resnets.{block}", DIFFUSERS_RESBLOCK, channels)
            if stage.attends:
                depth, linear = stage.depths[block], config.linear_projection
                name = f"{theirs}.attentions.{block}"
                yield from spatial_transformer(f"{ours}.transformers.{block}", name, depth, linear=linear)
        if stage.resample:
            yield from module(f"{ours}.{resample}.conv", f"{theirs}.{resample}rs.0.conv")


# --- the config ------------------------------------------------------------------------------------------------------


def unet_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `UNetConfig` from the layout of single files; heads cannot be determined from shapes."""
    fields = encoder_fields(shapes)
    count = len(fields["channels"])
    blocks = list(per_stage("blocks_per_stage", fields["blocks_per_stage"], count, least=1))
    return _whole_fields(shapes, fields, "out.2.weight", _depths_up(shapes, blocks))


def unet_fields_diffusers(shapes: Shapes) -> dict[str, Any]:
    """The same fields from the layout of diffusers."""
    fields = encoder_fields_diffusers(shapes)
    up: list[int | tuple[int, ...]] = []
    for stage in range(len(fields["channels"])):  # `up_blocks` begin with the coarsest stage
        block = f"up_blocks.{stage}"
        count = length(shapes, f"{block}.resnets")
        up.insert(
            0, _evenly([length(shapes, f"{block}.attentions.{index}.transformer_blocks") for index in range(count)])
        )
    return _whole_fields(shapes, fields, "conv_out.weight", up)


def _whole_fields(
    shapes: Shapes, encoder: dict[str, Any], last: str, up: list[int | tuple[int, ...]]
) -> dict[str, Any]:
    """Fields of the whole U-Net, from those of its way down, its last layer and the depths of its way up."""
    guidance = next((name for name in (f"{GUIDANCE}.weight", GUIDANCE_LDM) if name in shapes), None)
    return {
        **encoder,
        "out_channels": need(shapes, last)[0],
        "guidance_dim": None if guidance is None else need(shapes, guidance)[1],
        "up_depth": None if tuple(up) == encoder["transformer_depth"] else tuple(up),
    }


def encoder_fields(shapes: Shapes) -> dict[str, Any]:
    """The fields that the way down and the middle tell, which ControlNets have as well."""
    channels: list[int] = []
    depths: list[list[int]] = []
    number, fresh = 1, True
    while True:
        block = f"input_blocks.{number}"
        if f"{block}.0.op.weight" in shapes:
            fresh = True
        elif f"{block}.0.out_layers.3.weight" in shapes:
            if fresh:
                channels.append(need(shapes, f"{block}.0.out_layers.3.weight")[0])
                depths.append([])
                fresh = False
            depths[-1].append(length(shapes, f"{block}.1.transformer_blocks"))
        else:
            break
        number += 1
    if not channels:
        raise BrokenModel("the U-Net has no input_blocks.1, so its shape cannot be determined")
    mid_depth = length(shapes, "middle_block.1.transformer_blocks")
    middle = [f"middle_block.{place}.out_layers.3.weight" in shapes for place in (0, 2 if mid_depth else 1)]
    return {
        "in_channels": need(shapes, "input_blocks.0.0.weight")[1],
        "channels": tuple(channels),
        **_depth_fields(depths, mid_depth, middle),
        **_width_fields(shapes),
    }


def encoder_fields_diffusers(shapes: Shapes) -> dict[str, Any]:
    """The same fields from the layout of diffusers."""
    channels: list[int] = []
    depths: list[list[int]] = []
    for stage in range(length(shapes, "down_blocks")):
        block = f"down_blocks.{stage}"
        channels.append(need(shapes, f"{block}.resnets.0.conv2.weight")[0])
        count = length(shapes, f"{block}.resnets")
        depths.append([length(shapes, f"{block}.attentions.{index}.transformer_blocks") for index in range(count)])
    if not channels:
        raise BrokenModel("the U-Net has no down_blocks.0, so its shape cannot be determined")
    mid_depth = length(shapes, "mid_block.attentions.0.transformer_blocks")
    middle = [f"mid_block.resnets.{place}.conv2.weight" in shapes for place in (0, 1)]
    return {
        "in_channels": need(shapes, "conv_in.weight")[1],
        "channels": tuple(channels),
        **_depth_fields(depths, mid_depth, middle),
        **_width_fields(shapes),
    }


def _depth_fields(depths: list[list[int]], mid_depth: int, middle: list[bool]) -> dict[str, Any]:
    blocks = [len(stage) for stage in depths]
    return {
        "blocks_per_stage": tuple(blocks) if len(set(blocks)) > 1 else blocks[0],
        "transformer_depth": tuple(map(_evenly, depths)),
        "mid_depth": mid_depth,
        # any sign of a whole middle asks for a whole one, so that what is missing is listed as missing
        "mid_blocks": 2 if mid_depth or middle[1] else sum(middle),
    }


def _width_fields(shapes: Shapes) -> dict[str, Any]:
    keys = [name for name in shapes if name.endswith("attn2.to_k.weight")]
    projections = [shapes[name] for name in shapes if name.endswith(".proj_in.weight")]
    vector = next((name for name in VECTORS if name in shapes), None)
    return {
        "context_dim": need(shapes, keys[0])[1] if keys else 0,
        "vector_dim": None if vector is None else need(shapes, vector)[1],
        "linear_projection": bool(projections) and len(projections[0]) == 2,
    }


def _depths_up(shapes: Shapes, blocks: list[int]) -> list[int | tuple[int, ...]]:
    """Depths on the way up, finest stage first as everywhere in a config; `output_blocks` begin with the coarsest."""
    found: list[int | tuple[int, ...]] = []
    number = 0
    for count in reversed(blocks):
        stage = range(number, number + count + 1)
        found.insert(0, _evenly([length(shapes, f"output_blocks.{block}.1.transformer_blocks") for block in stage]))
        number += count + 1
    return found


def _evenly(depths: list[int]) -> int | tuple[int, ...]:
    """One number where all are equal."""
    return depths[0] if len(set(depths)) == 1 else tuple(depths)


UNET_LAYOUTS = layouts(
    Layout("ldm", marks("input_blocks.0.0.weight"), unet_fields, unet_ldm),
    Layout(
        "diffusers", marks("conv_in.weight down_blocks.0.resnets.0.conv1.weight"), unet_fields_diffusers, unet_diffusers
    ),
)
