"""Fewer bytes per weight: 8-bit integers for matrices and convolutions, 16-bit floats for the rest.

Symmetric quantisation with one scale per output channel o (Krishnamoorthi 2018, "Quantizing deep convolutional
networks for efficient inference", section 3.1): scale_o = max |W_o| / 127, Q_o = round(W_o / scale_o),
W_o ~ scale_o Q_o.
The scales are float32: there are few, and float16 would round small ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import BrokenModel, unknown_choice

SCALE = ".scale"
"""A tensor packed to integers under NAME has its scales under NAME.scale."""

PACKINGS: dict[str, torch.dtype] = {
    "int8": torch.float16,  # the dtype of what is not packed to integers
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}

SMALLEST = 4096
"""Tensors with fewer elements stay 16-bit floats: packing them saves nothing."""

SENSITIVE = ("conv_in.weight", "conv_out.weight", "position_embedding")
"""Tensors that stay 16-bit floats: all that a network sees or says goes through the small ones at its ends."""


def pack(state: Mapping[str, Tensor], packing: str) -> dict[str, Tensor]:
    """Our tensors -> what is stored for them."""
    if packing not in PACKINGS:
        raise unknown_choice("packing", packing, PACKINGS)
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if packing == "int8" and _to_integers(name, tensor):
            stored[name], stored[name + SCALE] = quantise(tensor)
        else:
            stored[name] = narrowed(tensor, PACKINGS[packing])
    return stored


def unpack(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `pack`, up to rounding; integers become float32. BrokenModel where scales do not fit."""
    state: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        base = name.removesuffix(SCALE)
        if base != name and base in stored and stored[base].dtype == torch.int8:
            continue
        scale = stored.get(name + SCALE)
        if tensor.dtype == torch.int8:
            if scale is None or not tensor.ndim or scale.shape != tensor.shape[:1]:
                raise BrokenModel(f"tensor {name!r} is of 8-bit integers, and its scales are missing or do not fit")
            tensor = dequantise(tensor, scale)
        state[name] = tensor
    return state


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[O, ...] -> integers in -127 .. 127 of the same shape, and float32 scales [O]."""
    weight = weight.detach().float()
    largest = weight.abs().flatten(1).amax(dim=1)
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    integers = (weight / _column(scale, weight)).round().clamp(-127, 127).to(torch.int8)
    return integers, scale


def dequantise(integers: Tensor, scale: Tensor) -> Tensor:
    """Integers [O, ...] and scales [O] -> float32 [O, ...]."""
    return integers.float().mul_(_column(scale.float(), integers))  # in place: half the memory that must be made


def _column(scale: Tensor, like: Tensor) -> Tensor:
    return scale.reshape(-1, *(1,) * (like.ndim - 1))


def _to_integers(name: str, tensor: Tensor) -> bool:
    wide = tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel() >= SMALLEST
    return wide and not name.endswith(SENSITIVE)


def narrowed(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A floating tensor in `dtype`, or in float32 where it holds numbers beyond float16's range; others unchanged."""
    if dtype is None or dtype == tensor.dtype or not tensor.is_floating_point():
        return tensor
    if dtype == torch.float16 and tensor.numel() and float(tensor.detach().abs().max()) > torch.finfo(dtype).max:
        return tensor.detach().float()
    return tensor.detach().to(dtype)
