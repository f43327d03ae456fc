"""Linear layers and convolutions with weights and activations in 8 bits, by oneDNN's operators.

Weights have a scale for each output channel, made once. Activations are scaled when they come: each row of a linear
layer's input and each picture of a convolution's by its own largest magnitude, so that what stands beside it in a batch
changes nothing. Products are summed exactly, in 32-bit integers. (Dettmers et al. 2022, "LLM.int8()", section 3:
vector-wise quantisation.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cpu_layers import must_be_plain, sides

_OPS: Any = torch.ops.onednn
TOP = 126
"""The largest code of an activation: 127 less the rounding of bfloat16, so that no code overflows."""
ROWS = 32
"""Tokens of a picture below which the plain layer is as fast; it does not depend on how many pictures there are."""
LEAST = 400_000
"""Weights of a linear layer from which the gain exceeds the cost of scaling its input."""
CHANNELS = 64
"""Channels on both sides of a convolution from which it is computed in 8 bits; the first and the last layer of a
network have few, and what they lose cannot be made up for."""


def can_quantise(layer: nn.Module) -> bool:
    """Whether a layer gains by 8 bits."""
    if type(layer) is nn.Linear:
        return layer.weight.numel() >= LEAST
    if type(layer) is nn.Conv2d:
        same = layer.padding_mode == "zeros" and layer.groups == 1 and not isinstance(layer.padding, str)
        return same and min(layer.in_channels, layer.out_channels) >= CHANNELS
    return False


def quantised(layer: nn.Module) -> Int8Linear | Int8Conv:
    """The layer in 8 bits; it must be one that `can_quantise`."""
    return Int8Conv(layer) if isinstance(layer, nn.Conv2d) else Int8Linear(layer)  # type: ignore[arg-type]


def weight_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [out,...] as int8 of the same shape, and the scale of each output channel, float32 [out]."""
    rows = weight.detach().float()
    scale = rows.flatten(1).abs().amax(dim=1).clamp(min=1e-12) / 127
    codes = (rows / scale.view(-1, *[1] * (rows.ndim - 1))).round_().clamp_(-127, 127)
    return codes.to(torch.int8), scale


def activation_codes(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """x as whole numbers from -126 to 126 in its own type, and the scale over `dims` that gives x back."""
    peak = x.abs().amax(dim=dims, keepdim=True).float().clamp_(min=1e-12)
    factor = (TOP / peak).to(x.dtype)
    return (x * factor).round_(), factor.float().reciprocal_()


class Int8Linear(nn.Module):
    """A linear layer; an input of few rows goes through the plain one."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        codes, self._scale = weight_codes(layer.weight)
        self._packed = _OPS.qlinear_prepack(codes, None)
        self._zero = torch.zeros(len(codes), dtype=torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 3 or x.shape[-2] < ROWS or must_be_plain(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        codes, scale = activation_codes(x.reshape(-1, x.shape[-1]), (1,))
        out: Tensor = _OPS.qlinear_pointwise(
            codes.to(torch.int8), 1.0, 0, self._packed, self._scale, self._zero, None,
            1.0, 0, x.dtype, "none", [], "",
        )  # fmt: skip
        return _rescaled(out, scale.to(x.dtype), self.bias).view(*x.shape[:-1], -1)


class Int8Conv(nn.Module):
    """A convolution, in channels_last."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.padding, self.stride, self.dilation = sides(layer)
        codes, self._scale = weight_codes(layer.weight)
        shape = (self.stride, self.padding, self.dilation)
        codes = codes.contiguous(memory_format=torch.channels_last)
        self._packed = _OPS.qconv_prepack(codes, self._scale, 1.0, 128, *shape, 1, None)
        self._zero = torch.zeros(len(codes), dtype=torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        shape = (self.stride, self.padding, self.dilation)
        if must_be_plain(x, self.weight):
            return F.conv2d(x, self.weight, self.bias, *shape)
        x = x.contiguous(memory_format=torch.channels_last)
        codes, scale = activation_codes(x, (1, 2, 3))
        out: Tensor = _OPS.qconv2d_pointwise(
            codes.add_(128).to(torch.uint8), 1.0, 128, self._packed, self._scale, self._zero, None, *shape, 1,
            1.0, 0, x.dtype, "none", [], "",
        )  # fmt: skip
        return _rescaled(out, scale.to(x.dtype), None if self.bias is None else self.bias.view(1, -1, 1, 1))


def _rescaled(out: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """out * scale + bias in one pass."""
    return out.mul_(scale) if bias is None else torch.addcmul(bias, out, scale)
