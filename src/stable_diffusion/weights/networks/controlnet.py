"""ControlNets on disk: LDM and diffusers layouts, the union form, and control-LoRAs; shapes and key tables.

Sources: the released code of Zhang et al. 2023 (`control_model.`), the module trees of diffusers' ControlNetModel and
ControlNetUnionModel, and the control-LoRAs that Stability AI released for SDXL, as their checkpoints name tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BrokenModel
from ...models.controlnet import ControlNet, ControlNetConfig
from ...models.unet import UNetConfig
from ..build import Prefixed, build
from ..checkpoints.folder import read_config
from ..containers.limits import using_config
from ..containers.tensors import TensorFile
from ..keys import KeyTable, Rule, module, modules
from .clip import openclip_layer
from .layout import Shapes
from .unet import EMBEDDING_MLP, encoder_diffusers, encoder_fields, encoder_fields_diffusers, encoder_ldm

PREFIX = "control_model."
LORA_MARK = "lora_controlnet"
LDM_MARK = "zero_convs.0.0.weight"
DIFFUSERS_MARK = "controlnet_cond_embedding.conv_in.weight"
DIFFERENCE_MARK = "difference"
"""Tensor of a file whose way down is stored as its difference from that of the U-Net, as sd-scripts' author made them.
"""
UP, DOWN = ".up", ".down"
LABELS = {"control-LoRA": "control-LoRA", "ldm": "ControlNet", "diffusers": "ControlNet"}
UNION_TASKS: dict[str, int] = {
    "openpose": 0,
    "depth": 1,
    **dict.fromkeys(("softedge", "hed", "scribble"), 2),
    **dict.fromkeys(("canny", "lineart", "mlsd"), 3),
    "normal": 4,
    "segment": 5,
    "tile": 6,
    "inpaint": 7,
}
"""Number of each kind of picture in xinsir's union ControlNets: 6 in the first release, 8 in ProMax."""


def controlnet_layout(tensors: TensorFile) -> str | None:
    """ "control-LoRA", "ldm", "diffusers", or None where a file is no ControlNet."""
    if LORA_MARK in tensors:
        return "control-LoRA"
    if LDM_MARK in tensors or PREFIX + LDM_MARK in tensors:
        return "ldm"
    return "diffusers" if DIFFUSERS_MARK in tensors else None


def controlnet_kind(tensors: TensorFile) -> str | None:
    """What people call such a file; None where it is no ControlNet."""
    layout = controlnet_layout(tensors)
    return layout and ("union ControlNet" if "task_embedding" in tensors else LABELS[layout])


def controlnet_ldm(config: ControlNetConfig) -> KeyTable:
    """The layout of LDM, without the leading `control_model.` that most files have."""
    hint = {f"convs.{index}": str(2 * index) for index in range(2 * len(config.hint_widths))}
    outs = {f"outs.{index}": f"zero_convs.{index}.0" for index in range(len(config.skip_channels()))}
    return KeyTable(
        (
            *encoder_ldm(config),
            *modules("hint", "input_hint_block", hint),
            *modules("", "", {**outs, "mid_out": "middle_block_out.0"}),
        )
    )


def controlnet_diffusers(config: ControlNetConfig) -> KeyTable:
    """The layout of diffusers, for plain and union ControlNets."""
    last = 2 * len(config.hint_widths) - 1
    hint = {"convs.0": "conv_in", f"convs.{last}": "conv_out"}
    hint |= {f"convs.{index + 1}": f"blocks.{index}" for index in range(last - 1)}
    outs = {f"outs.{index}": f"controlnet_down_blocks.{index}" for index in range(len(config.skip_channels()))}
    return KeyTable(
        (
            *encoder_diffusers(config),
            *modules("hint", "controlnet_cond_embedding", hint),
            *modules("", "", {**outs, "mid_out": "controlnet_mid_block"}),
            *(_tasks(config) if config.tasks else ()),
        )
    )


def _tasks(config: ControlNetConfig) -> Iterator[Rule]:
    """The union's own parts; `transformer_layes` is spelled so in every checkpoint."""
    yield Rule(("tasks.embedding",), ("task_embedding",))
    for index in range(config.task_layers):
        ours, theirs = f"tasks.layers.{index}", f"transformer_layes.{index}"
        yield from openclip_layer(ours, theirs)
    yield from module("tasks.shift", "spatial_ch_projs")
    yield from modules("tasks.switch_mlp", "control_add_embedding", EMBEDDING_MLP)


def controlnet_config(shapes: Shapes, layout: str, base: UNetConfig) -> ControlNetConfig:
    """Shape of a ControlNet from its tensors; what they do not say (heads, groups) is that of the U-Net it is for."""
    if layout == "diffusers":
        fields = encoder_fields_diffusers(shapes)
        hints = [f"controlnet_cond_embedding.{name}.weight" for name in ("conv_in", *_strided(shapes))]
    else:
        fields = encoder_fields(shapes)
        hints = [f"input_hint_block.{index}.weight" for index in range(0, 99, 2)]
        found = [name for name in hints if name in shapes][:-1]
        hints = [found[0], *found[2::2]] if found else hints
    first = [shapes[name] for name in hints if name in shapes]
    if not first or any(len(shape) != 4 for shape in first):
        raise BrokenModel(f"the tensor {hints[0]} is missing, so the shape of the ControlNet cannot be determined")
    tasks = shapes.get("task_embedding")
    layers = {name.split(".")[1] for name in shapes if name.startswith("transformer_layes.")}
    return ControlNetConfig(
        **{**fields, "context_dim": fields["context_dim"] or base.context_dim},
        heads=base.heads,
        head_dim=base.head_dim,
        upcast_attention=base.upcast_attention,
        groups=base.groups,
        hint_channels=first[0][1],
        hint_widths=tuple(shape[0] for shape in first),
        tasks=0 if tasks is None else tasks[0],
        task_layers=min(len(layers), 16),
    )


def _strided(shapes: Shapes) -> list[str]:
    """Every second convolution of the picture's encoder halves it."""
    blocks = (f"blocks.{index}" for index in range(1, 98, 2))
    return [block for block in blocks if f"controlnet_cond_embedding.{block}.weight" in shapes]


def build_controlnet(
    tensors: TensorFile,
    base: UNetConfig,
    originals: Mapping[str, Tensor],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> ControlNet:
    """The ControlNet of a file for a U-Net of shape `base`.

    `originals` are the U-Net's parameters, from which a control-LoRA and a file of differences are made. BrokenModel
    where tensors are missing, unexpected or of the wrong shape, or it is for another U-Net.
    """
    layout = controlnet_layout(tensors)
    assert layout is not None
    prefix = PREFIX if PREFIX + LDM_MARK in tensors else ""
    theirs = Prefixed(tensors, prefix, (DIFFERENCE_MARK,))
    shapes = {name: theirs.shape(name) for name in theirs}
    if layout == "control-LoRA":
        config = _lora_config(shapes, base)
        state: Mapping[str, Tensor] = whole_weights(theirs, config, originals, tensors.path)
    else:
        with using_config(tensors.path):
            config, state = controlnet_config(shapes, layout, base), theirs
        config = replace(config, pooled=_is_pooled(tensors.path))
        if layout == "ldm" and DIFFERENCE_MARK in tensors:
            state = added_weights(theirs, config, originals, tensors.path)
    table = controlnet_diffusers(config) if layout == "diffusers" else controlnet_ldm(config)
    what = f"the ControlNet {tensors.path}"
    network = build(lambda: ControlNet(config), state, table, what=what, dtype=dtype, device=device)
    found, wanted = config.skip_channels(), base.skip_channels()
    if found != wanted or config.vector_dim != base.vector_dim:
        raise BrokenModel(f"it gives features of {found} channels; this model's U-Net has {wanted}")
    return network


def _is_pooled(path: Path) -> bool:
    """Whether a ControlNet adds means, which its tensors do not say: diffusers' config beside it does, and else its
    name (the one released ControlNet of this kind reads shuffled pictures)."""
    beside = path.parent / "config.json"
    config = read_config(beside) if beside.is_file() else {}
    if config.get("_class_name") == "ControlNetModel":
        return config.get("global_pool_conditions") is True
    return "shuffle" in re.split(r"[^a-z0-9]+", path.stem.lower())


def added_weights(
    file: Prefixed, config: ControlNetConfig, originals: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The tensors of the ControlNet of a file of differences, in LDM names: those that the U-Net has too are the sum
    of both. BrokenModel where the U-Net is of another shape."""
    table = KeyTable(tuple(encoder_ldm(config)))
    lacking = next((name for name in table.our_names() if name not in originals), None)
    base = {} if lacking else table.invert({name: originals[name] for name in table.our_names()})
    wrong = next((name for name, weight in base.items() if name in file and file.shape(name) != weight.shape), lacking)
    if wrong is not None:
        raise BrokenModel(f"{path} is the difference from a U-Net of another shape: {wrong} does not fit")
    return {
        name: file[name].float().to(base[name].device) + base[name].float() if name in base else file[name]
        for name in file
    }


def _lora_config(shapes: Shapes, base: UNetConfig) -> ControlNetConfig:
    """A control-LoRA has the shape of the U-Net's way down; only its picture may have other channels."""
    name = "input_hint_block.0.weight"
    first = shapes.get(name)
    if first is None or len(first) != 4:
        raise BrokenModel(f"the tensor {name} is missing, so the shape of the ControlNet cannot be determined")
    fields: dict[str, Any] = {name: getattr(base, name) for name in UNetConfig.__dataclass_fields__}
    return ControlNetConfig(**fields, hint_channels=first[1])


def whole_weights(
    file: Prefixed, config: ControlNetConfig, originals: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The tensors of the ControlNet that a control-LoRA means, in LDM names.

    Each is the file's own, or else the U-Net's, plus the product of `NAME.up` [O,r,..] and `NAME.down` [r,I,..] where
    the file has these.
    """
    table = KeyTable(tuple(encoder_ldm(config)))
    base = table.invert({name: originals[name] for name in table.our_names()})
    state = {name: file[name] for name in file if not name.endswith((UP, DOWN)) and name != LORA_MARK}
    used = 0
    for name, weight in base.items():
        stem = name.removesuffix(".weight")
        if name in state:
            continue
        if stem + UP in file and stem + DOWN in file:
            up, down = file[stem + UP].float(), file[stem + DOWN].float()
            if up.flatten(1).shape[-1] != down.shape[0] or len(up) * down[0].numel() != weight.numel():
                shapes = f"{list(up.shape)} and {list(down.shape)}"
                raise BrokenModel(f"{path}: {stem} has factors of shapes {shapes}; the weight is {list(weight.shape)}")
            product = (up.flatten(1) @ down.flatten(1)).to(weight.device).reshape(weight.shape)
            state[name] = weight.float() + product
            used += 2
        else:
            state[name] = weight
    factors = [name for name in file if name.endswith((UP, DOWN))]
    if used != len(factors):
        unused = f"{len(factors) - used} of {len(factors)}"
        raise BrokenModel(f"{path}: {unused} low-rank tensors fit no layer of this model")
    return state
