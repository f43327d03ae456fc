"""Layers for bfloat16 on a CPU: channels_last throughout, and what follows a product done while it is in registers.

torch's own layers write every result to memory before the next operator reads it again. Here GELU, products and sums
are part of oneDNN's convolution and linear operators, in float32 before the result is rounded, and activations are made
in place. With weights in channels_last (an order of the same bytes, no copy) oneDNN brings them into the order of the
processor's matrix units in half the time: a 3x3 convolution of 320 channels at 64x64 takes 11.4 ms and not 23.7, one of
2560 to 1280 at 16x16 66 ms and not 76 (Xeon with AMX, processor time of one core). Where a convolution has far more
weights than pixels, bringing them into that order is most of its time; there it is a product with the patches of the
picture, which reads the weights as they lie: from 2560 to 1280 channels at 8x8 20 ms and not 51 (two cores).

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
CHANNELS, PIXELS = 640, 10
"""Channels of a convolution's input from which, with so many of them for each pixel of its output, it is a product."""


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
        if must_be_plain(x, self.weight):
            return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        if self._is_product(x):
            return self._product(x)
        x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def added(self, x: Tensor, other: Tensor) -> Tensor:
        """The convolution of x, and `other` [B,C,H,W] added to it."""
        if must_be_plain(x, self.weight):
            plain: Tensor = other + self(x)
            return plain
        if self._is_product(x):
            return self._product(x).add_(other)
        x = x.contiguous(memory_format=torch.channels_last)
        other = other.contiguous(memory_format=torch.channels_last)
        shape = (self.padding, self.stride, self.dilation, self.groups)
        out: Tensor = _OPS._convolution_pointwise.binary(
            x, other, self.weight, self.bias, *shape, "add", 1.0, None, [], None
        )
        return out

    def _is_product(self, x: Tensor) -> bool:
        """Whether the weights outweigh the pixels so much that a plain product is faster, as measured."""
        height, width = (size // step for size, step in zip(x.shape[-2:], self.stride, strict=True))
        few = 0 < height * width * PIXELS <= x.shape[1]
        return few and x.shape[1] >= CHANNELS and self.groups == 1 and max(self.dilation) == 1

    def _product(self, x: Tensor) -> Tensor:
        """One product for each picture, so that its bits do not depend on what is computed with it."""
        kernel_h, kernel_w = self.weight.shape[2:]
        pad_h, pad_w = self.padding
        pixels = F.pad(x.permute(0, 2, 3, 1), (0, 0, pad_w, pad_w, pad_h, pad_h))
        patches = pixels.unfold(1, kernel_h, self.stride[0]).unfold(2, kernel_w, self.stride[1])  # [B, H, W, C, h, w]
        count, height, width = patches.shape[:3]
        rows = patches.permute(0, 1, 2, 4, 5, 3).reshape(count, height * width, -1)
        weight = self.weight.permute(0, 2, 3, 1).reshape(len(self.weight), -1)  # as it lies in channels_last
        out = x.new_empty(count, height, width, len(weight))
        for picture, each in zip(rows, out, strict=True):
            each.copy_(_OPS._linear_pointwise(picture, weight, self.bias, "none", [], "").view_as(each))
        return out.permute(0, 3, 1, 2)


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
