"""The torch engine with weights alone in 8 bits: `--dtype int8-weights`, for half the memory of the denoiser.

Weights of linear layers and convolutions are whole numbers from -127 to 127 with a scale for each output channel; the
layers that are most sensitive, and those that are small, stay as they are. A layer makes its weight in the precision of
its input when it is called, and multiplies what comes out by the scales: the codes are exact in bfloat16, so that
nothing is rounded but the weight itself, once. Activations keep their precision, which tells this from `int8`.

The plain weights are let go of where they are a view of a file, which loading in this type sees to.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from ..mapped_pages import release
from .base import Features
from .cpu_layers import sides
from .int8 import Int8Engine
from .int8_layers import CHANNELS

NAME = "int8-weights"
SMALLEST = 65_536
"""Weights of a layer from which it is kept in 8 bits."""
_REFUSED = {
    "image_prompt": "image prompts are not computed with weights in 8 bits",
    "attention_maps": "attention is not recorded with weights in 8 bits",
}


class Int8WeightsEngine(Int8Engine):
    """Denoising networks with their weights in 8 bits, all else as torch does it."""

    precision = NAME

    def refuses(self, features: Features) -> str | None:
        return next((_REFUSED[name] for name in features.names if name in _REFUSED), None)

    def quantisable(self, layer: nn.Module) -> bool:
        return can_be_small(layer)

    def quantised(self, layer: nn.Module) -> nn.Module:
        made = SmallConv(layer) if isinstance(layer, nn.Conv2d) else SmallLinear(layer)  # type: ignore[arg-type]
        release([made.weight])
        return made

    def whole(self, name: str, layer: nn.Module) -> nn.Module | None:
        """Layers that are not quantised stay as they are."""
        return None


def can_be_small(layer: nn.Module) -> bool:
    """Whether a layer's weight is kept in 8 bits."""
    if type(layer) is nn.Linear:
        return layer.weight.numel() >= SMALLEST
    if type(layer) is nn.Conv2d:
        plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return plain and min(layer.in_channels, layer.out_channels) >= CHANNELS
    return False


def small_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [out,...] as int8 of the same shape and order in memory, and the scale of each output channel, float32
    [out]."""
    kernel = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    ordered = weight.detach().permute(0, 2, 3, 1) if kernel else weight.detach()
    rows = ordered.flatten(1).to(torch.float32, copy=True)
    low, high = torch.aminmax(rows, dim=1)
    scale = torch.maximum(high, -low).clamp_(min=1e-12) / 127
    codes = rows.div_(scale[:, None]).round_().clamp_(-127, 127).to(torch.int8).view(ordered.shape)
    return codes.permute(0, 3, 1, 2) if kernel else codes, scale


class SmallLinear(nn.Module):
    """A linear layer with its weight in 8 bits."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self._codes, self._scale = small_codes(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float16:  # whose range the product with codes may leave
            weight = (self._codes * self._scale[:, None]).to(x.dtype)
            return F.linear(x, weight, self.bias)
        return _rescaled(F.linear(x, self._codes.to(x.dtype)), self._scale, self.bias)


class SmallConv(nn.Module):
    """A convolution with its weight in 8 bits."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.padding, self.stride, self.dilation = sides(layer)
        self.groups = layer.groups
        self._codes, scale = small_codes(layer.weight)
        self._scale = scale.view(-1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        shape = (self.stride, self.padding, self.dilation, self.groups)
        if x.dtype == torch.float16:
            weight = (self._codes * self._scale[..., None]).to(x.dtype)
            return F.conv2d(x, weight, self.bias, *shape)
        bias = None if self.bias is None else self.bias.view(-1, 1, 1)
        return _rescaled(F.conv2d(x, self._codes.to(x.dtype), None, *shape), self._scale, bias)


def _rescaled(out: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """out * scale + bias, rounded once to the type of `out`."""
    if bias is None:
        return out * scale if out.dtype == scale.dtype else (out * scale).to(out.dtype)
    return torch.addcmul(bias.to(scale.dtype), out.to(scale.dtype), scale).to(out.dtype)


def make_engine(precision: str = NAME) -> Int8WeightsEngine:
    """The engine; it needs no operators but torch's own."""
    if precision != NAME:
        raise InvalidRequest(f"precision {precision!r} is not that of this engine; expected {NAME!r}")
    return Int8WeightsEngine()
