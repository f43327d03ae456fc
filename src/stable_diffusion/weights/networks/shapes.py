"""Configs from tensor shapes: how a checkpoint in the LDM layout tells the shape of its networks.

Every function takes the shapes of one network, {name without prefix: shape}, and returns the config's fields as far as
shapes tell them. They raise BrokenModel where a tensor that decides is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...errors import BrokenModel
from ...models.config import per_stage
from ..containers.limits import COUNT_LIMIT

Shapes = Mapping[str, tuple[int, ...]]
VECTORS = ("label_emb.0.0.weight", "add_embedding.linear_1.weight", "class_embedding.linear_1.weight")
"""First layer of what a U-Net's vector passes through, in the LDM layout and in that of diffusers."""

GUIDANCE = ("time_embedding.cond_proj.weight", "time_embed.cond_proj.weight")
"""What a U-Net's guidance scale passes through, in single files."""


def unet_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `UNetConfig` from the blocks of both ways, the middle and `out`; heads cannot be told from shapes."""
    fields = encoder_fields(shapes)
    count = len(fields["channels"])
    blocks = list(per_stage("blocks_per_stage", fields["blocks_per_stage"], count, least=1))
    up = tuple(_up_depths(shapes, blocks))
    guidance = next((name for name in GUIDANCE if name in shapes), None)
    return {
        **fields,
        "out_channels": _need(shapes, "out.2.weight")[0],
        "guidance_dim": None if guidance is None else _need(shapes, guidance)[1],
        "up_depth": None if up == fields["transformer_depth"] else up,
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
                channels.append(_need(shapes, f"{block}.0.out_layers.3.weight")[0])
                depths.append([])
                fresh = False
            depths[-1].append(length(shapes, f"{block}.1.transformer_blocks"))
        else:
            break
        number += 1
    if not channels:
        raise BrokenModel("the U-Net has no input_blocks.1, so its shape cannot be told")
    mid_depth = length(shapes, "middle_block.1.transformer_blocks")
    middle = [f"middle_block.{place}.out_layers.3.weight" in shapes for place in (0, 2 if mid_depth else 1)]
    return {
        "in_channels": _need(shapes, "input_blocks.0.0.weight")[1],
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
        channels.append(_need(shapes, f"{block}.resnets.0.conv2.weight")[0])
        count = length(shapes, f"{block}.resnets")
        depths.append([length(shapes, f"{block}.attentions.{index}.transformer_blocks") for index in range(count)])
    if not channels:
        raise BrokenModel("the U-Net has no down_blocks.0, so its shape cannot be told")
    mid_depth = length(shapes, "mid_block.attentions.0.transformer_blocks")
    middle = [f"mid_block.resnets.{place}.conv2.weight" in shapes for place in (0, 1)]
    return {
        "in_channels": _need(shapes, "conv_in.weight")[1],
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
        "context_dim": _need(shapes, keys[0])[1] if keys else 0,
        "vector_dim": None if vector is None else _need(shapes, vector)[1],
        "linear_projection": bool(projections) and len(projections[0]) == 2,
    }


def _up_depths(shapes: Shapes, blocks: list[int]) -> list[int | tuple[int, ...]]:
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


def _stage_channels(shapes: Shapes, stages: str, block: str) -> tuple[int, ...]:
    """The channels of each stage under `stages`, told by the first convolution of its first residual block."""
    names = [f"{stages}.{stage}.{block}.conv1.weight" for stage in range(length(shapes, stages))]
    return tuple(_need(shapes, name)[0] for name in names)


def vae_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `VAEConfig` from `encoder` and `decoder` in the LDM layout."""
    channels = _stage_channels(shapes, "encoder.down", "block.0")
    decoder = _stage_channels(shapes, "decoder.up", "block.0")
    if not channels:
        raise BrokenModel("the autoencoder has no encoder.down.0, so its shape cannot be told")
    return {
        "image_channels": _need(shapes, "encoder.conv_in.weight")[1],
        "latent_channels": _need(shapes, "decoder.conv_in.weight")[1],
        "channels": channels,
        "decoder_channels": None if decoder == channels else decoder,
        "blocks_per_stage": length(shapes, "encoder.down.0.block"),
        "decoder_blocks": length(shapes, "decoder.up.0.block"),
        "mid_attention": "encoder.mid.attn_1.q.weight" in shapes,
        "quant_conv": "quant_conv.weight" in shapes,
    }


def vae_fields_diffusers(shapes: Shapes) -> dict[str, Any]:
    """Fields of `VAEConfig` from the layout of diffusers, whose decoder is numbered from the coarsest stage."""
    channels = _stage_channels(shapes, "encoder.down_blocks", "resnets.0")
    decoder = _stage_channels(shapes, "decoder.up_blocks", "resnets.0")[::-1]
    attention = ("to_q.weight", "query.weight")
    return {
        "image_channels": _need(shapes, "encoder.conv_in.weight")[1],
        "latent_channels": _need(shapes, "decoder.conv_in.weight")[1],
        "channels": channels,
        "decoder_channels": None if decoder == channels else decoder,
        "blocks_per_stage": length(shapes, "encoder.down_blocks.0.resnets"),
        "decoder_blocks": length(shapes, "decoder.up_blocks.0.resnets"),
        "mid_attention": any(f"encoder.mid_block.attentions.0.{name}" in shapes for name in attention),
        "quant_conv": "quant_conv.weight" in shapes,
    }


def clip_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `CLIPTextConfig` from the layout of transformers, with or without the leading `text_model.`."""
    base = "text_model." if any(name.startswith("text_model.") for name in shapes) else ""
    vocabulary, width = _need(shapes, f"{base}embeddings.token_embedding.weight")
    projection = shapes.get("text_projection.weight")
    return {
        "vocab_size": vocabulary,
        "width": width,
        "layers": length(shapes, f"{base}encoder.layers"),
        "mlp_width": _need(shapes, f"{base}encoder.layers.0.mlp.fc1.weight")[0],
        "context_length": _need(shapes, f"{base}embeddings.position_embedding.weight")[0],
        "projection_dim": None if projection is None else projection[0],
        "eos_token_id": vocabulary - 1,
    }


def openclip_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `CLIPTextConfig` from the layout of OpenCLIP."""
    vocabulary, width = _need(shapes, "token_embedding.weight")
    projection = shapes.get("text_projection")
    return {
        "vocab_size": vocabulary,
        "width": width,
        "layers": length(shapes, "transformer.resblocks"),
        "mlp_width": _need(shapes, "transformer.resblocks.0.mlp.c_fc.weight")[0],
        "context_length": _need(shapes, "positional_embedding")[0],
        "projection_dim": None if projection is None else projection[1],
        "eos_token_id": vocabulary - 1,
    }


def clip_vision_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `CLIPVisionConfig` from either layout, that of OpenCLIP without its leading `visual.`."""
    if "conv1.weight" in shapes:
        layers, mlp = "transformer.resblocks", "mlp.c_fc"
        patch, positions = _need(shapes, "conv1.weight"), _need(shapes, "positional_embedding")
        projection_dim = _need(shapes, "proj")[1]
    else:
        layers, mlp, embeddings = "vision_model.encoder.layers", "mlp.fc1", "vision_model.embeddings"
        patch = _need(shapes, f"{embeddings}.patch_embedding.weight")
        positions = _need(shapes, f"{embeddings}.position_embedding.weight")
        projection_dim = _need(shapes, "visual_projection.weight")[0]
    return {
        "width": patch[0],
        "layers": length(shapes, layers),
        "mlp_width": _need(shapes, f"{layers}.0.{mlp}.weight")[0],
        "image_size": patch[-1] * round(max(positions[0] - 1, 1) ** 0.5),
        "patch_size": patch[-1],
        "projection_dim": projection_dim,
    }


def mmdit_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `MMDiTConfig`; heads can be told only where queries are normed."""
    width, in_channels, patch = _need(shapes, "x_embedder.proj.weight")[:3]
    depth = length(shapes, "joint_blocks")
    table = shapes.get("pos_embed", ())
    side = math.isqrt(table[-2]) if len(table) >= 2 else 0
    if not side or side**2 != table[-2]:
        raise BrokenModel(f"the table of positions (pos_embed) has the shape {list(table)}; expected n^2 rows")
    norm = shapes.get("joint_blocks.0.x_block.attn.ln_q.weight")
    dual = (block for block in range(depth) if f"joint_blocks.{block}.x_block.attn2.qkv.weight" in shapes)
    return {
        "in_channels": in_channels,
        "out_channels": _need(shapes, "final_layer.linear.weight")[0] // max(1, patch) ** 2,
        "patch_size": patch,
        "width": width,
        "depth": depth,
        "heads": max(1, width // (norm[0] if norm and norm[0] else 64)),
        "context_dim": _need(shapes, "context_embedder.weight")[1],
        "vector_dim": _need(shapes, "y_embedder.mlp.0.weight")[1],
        "positions": side,
        "qk_norm": norm is not None,
        "dual_attention": tuple(dual),
    }


def t5_fields(shapes: Shapes) -> dict[str, Any]:
    """Fields of `T5Config` as far as shapes tell them; all public models have the same largest distance."""
    attention = "encoder.block.0.layer.0.SelfAttention"
    buckets, heads = _need(shapes, f"{attention}.relative_attention_bias.weight")
    embedding = "shared.weight" if "shared.weight" in shapes else "encoder.embed_tokens.weight"
    vocabulary, width = _need(shapes, embedding)
    return {
        "vocab_size": vocabulary,
        "width": width,
        "layers": length(shapes, "encoder.block"),
        "heads": heads,
        "head_dim": _need(shapes, f"{attention}.q.weight")[0] // max(1, heads),
        "mlp_width": _need(shapes, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight")[0],
        "buckets": buckets,
    }


def _need(shapes: Shapes, name: str) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) < 2:
        found = "is missing" if shape is None else f"has the shape {list(shape)}"
        raise BrokenModel(f"the tensor {name} {found}, so the shape of the network cannot be told")
    return shape


def length(shapes: Shapes, prefix: str) -> int:
    """Length of a numbered list of modules: one more than the highest number, so that a gap shows as missing.

    BrokenModel where it is longer than any model's: a hostile file may number a layer 10^9.
    """
    start = len(prefix) + 1
    numbers = {name[start:].split(".", 1)[0] for name in shapes if name.startswith(prefix + ".")}
    counted = [int(number) for number in numbers if number.isascii() and number.isdigit() and len(number) < 10]
    if max(counted, default=0) >= COUNT_LIMIT:
        raise BrokenModel(f"there is a layer {prefix}.{max(counted)}; at most {COUNT_LIMIT} in a row are plausible")
    return max(counted, default=-1) + 1
