"""Weights in 8-bit floats with scales beside them, as ComfyUI and quantisers for diffusers write them.

W = S Q, with Q the tensor NAME.weight and S the tensor NAME.scale_weight or NAME.weight_scale, one number or one for
each row. What else such files hold is for layers that compute in 8 bits: a scale of their input, and marks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import BrokenModel
from .tensors import TensorFile, TensorInfo

WEIGHT = ".weight"
SCALES = (".scale_weight", ".weight_scale")
UNUSED = (".scale_input", ".input_scale", ".comfy_quant")
MARK = "scaled_fp8"


def unscaled(tensors: TensorFile) -> TensorFile:
    """The same tensors, each weight that has a scale as the float32 product of both when it is asked for, and without
    the scales and marks; a file without any is returned as it is. BrokenModel where a scale does not fit its weight."""
    scales = {weight: name for name in tensors for weight in _scaled_by(tensors, name)}
    unused = {name for name in tensors if name == MARK or name.endswith(f".{MARK}")} | set(scales.values())
    unused |= {weight.removesuffix(WEIGHT) + end for weight in scales for end in UNUSED}
    if not unused:
        return tensors

    def read(name: str) -> Tensor:
        tensor = tensors[name]
        if name not in scales:
            return tensor
        return tensor.float() * tensors[scales[name]].float().reshape(-1, *[1] * (tensor.dim() - 1))

    infos = {name: tensors.info(name) for name in tensors if name not in unused}
    stored = {name: tensors.stored(name) for name in infos}
    infos |= {name: TensorInfo(torch.float32, infos[name].shape) for name in scales}
    return TensorFile(tensors.path, infos, read, tensors.kind, stored)


def _scaled_by(tensors: TensorFile, name: str) -> list[str]:
    """The weight whose scale a tensor is, if it is one."""
    end = next((end for end in SCALES if name.endswith(end)), None)
    weight = "" if end is None else name.removesuffix(end) + WEIGHT
    shape = tensors.shape(weight)
    if not shape or not tensors.info(weight).dtype.is_floating_point:
        return []
    count, dtype = tensors.info(name).count, tensors.info(name).dtype
    if count not in (1, shape[0]) or not dtype.is_floating_point:
        what = f"{dtype} of shape {list(tensors.info(name).shape)}"
        raise BrokenModel(
            f"{tensors.path}: the scale {name[:80]!r} is {what}; expected one float, or one for each of {shape[0]} rows"
        )
    return [weight]
