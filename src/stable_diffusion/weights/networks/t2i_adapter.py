"""T2I-Adapters on disk, in the layout of diffusers (`adapter.`) and in that of the first releases; shapes and tables.

Sources: the module trees of diffusers' T2IAdapter and of the released code of Mou et al. 2023, as files name them.
"""

from __future__ import annotations

from typing import Any

import torch

from ...errors import BrokenModel
from ...models.t2i_adapter import T2IAdapter, T2IAdapterConfig
from ...models.unet import UNetConfig
from ..build import Prefixed, build
from ..containers.limits import using_config
from ..containers.tensors import TensorFile
from ..keys import KeyTable, Rule, module, modules
from .layout import Shapes, length

PREFIX = "adapter."
BLOCK = {"conv1": "block1", "conv2": "block2"}
FULL_MARK, LIGHT_MARK = "body.0.block1.weight", "body.0.out_conv.weight"
DIFFUSERS_MARK = "body.0.resnets.0.block1.weight"
FACTORS = (16, 8)
"""Pixels of the picture per feature of the first stage: 16 for XL, 8 for Stable Diffusion 1 and 2."""


def t2i_adapter_kind(tensors: TensorFile) -> str | None:
    """What people call such a file; None where the names are those of no T2I-Adapter in one of the layouts."""
    marks = (start + mark for start in ("", PREFIX) for mark in (FULL_MARK, LIGHT_MARK, DIFFUSERS_MARK))
    return "T2I-Adapter" if any(mark in tensors for mark in marks) else None


def t2i_adapter_table(config: T2IAdapterConfig, *, released: bool) -> KeyTable:
    """The layout of diffusers without its leading `adapter.`, or that of the first releases.

    There all blocks of a full adapter are numbered in a row, and the convolution that widens a stage is in its first.
    """
    rules: list[Rule] = []
    if config.kind != "light":
        rules += module("conv_in", "conv_in")
    for index, (before, after, _) in enumerate(config.stages()):
        flat = released and config.kind != "light"
        theirs = f"body.{index * config.blocks_per_stage if flat else index}"
        if config.kind == "light" or before != after:
            rules += module(f"stages.{index}.conv_in", f"{theirs}.in_conv")
        for block in range(config.blocks_per_stage):
            place = f"body.{index * config.blocks_per_stage + block}" if flat else f"{theirs}.resnets.{block}"
            place = f"{theirs}.body.{block}" if released and config.kind == "light" else place
            rules += modules(f"stages.{index}.blocks.{block}", place, BLOCK)
        if config.kind == "light":
            rules += module(f"stages.{index}.conv_out", f"{theirs}.out_conv")
    return KeyTable(tuple(rules))


def build_t2i_adapter(
    tensors: TensorFile, base: UNetConfig, *, dtype: torch.dtype, device: torch.device | str
) -> T2IAdapter:
    """The adapter of a file for a U-Net of shape `base`; BrokenModel where tensors are missing or do not fit it."""
    theirs = Prefixed(tensors, PREFIX if any(name.startswith(PREFIX) for name in tensors) else "")
    shapes = {name: theirs.shape(name) for name in theirs}
    released = DIFFUSERS_MARK not in shapes
    with using_config(tensors.path):
        config = T2IAdapterConfig(**_fields(shapes, released))
    table = t2i_adapter_table(config, released=released)
    what = f"the T2I-Adapter {tensors.path}"
    network = build(lambda: T2IAdapter(config), theirs, table, what=what, dtype=dtype, device=device)
    stages = (*base.channels, base.channels[-1])
    if config.channels not in (stages, stages[:-1]):
        raise BrokenModel(
            f"it gives features of {list(config.channels)} channels; this model's U-Net has {list(base.channels)}"
        )
    return network


def _fields(shapes: Shapes, released: bool) -> dict[str, Any]:
    light = LIGHT_MARK in shapes
    first = shapes.get("body.0.in_conv.weight" if light else "conv_in.weight", ())
    if len(first) != 4:
        raise BrokenModel("its first convolution is missing, so the shape of the adapter cannot be determined")
    factor = next((factor for factor in FACTORS if first[1] % factor**2 == 0), FACTORS[-1])
    counted = length(shapes, "body")
    if light:
        count, blocks = counted, length(shapes, "body.0.body" if released else "body.0.resnets")
        ends = [f"body.{index}.out_conv.weight" for index in range(count)]
    elif released:
        blocks = 2
        count = counted // blocks
        ends = [f"body.{index * blocks}.block1.weight" for index in range(count)]
    else:
        count, blocks = counted, length(shapes, "body.0.resnets")
        ends = [f"body.{index}.resnets.0.block1.weight" for index in range(count)]
    missing = next((name for name in ends if name not in shapes), None)
    if missing is not None or not count or not blocks:
        raise BrokenModel(
            f"the tensor {missing or 'body'} is missing, so the shape of the adapter cannot be determined"
        )
    kind = "light" if light else "full XL" if factor == FACTORS[0] else "full"
    return {
        "kind": kind,
        "picture_channels": first[1] // factor**2,
        "factor": factor,
        "channels": tuple(shapes[name][0] for name in ends),
        "blocks_per_stage": blocks,
    }
