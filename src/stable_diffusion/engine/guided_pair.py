"""What both rows of a guided step have in common is computed once.

Guidance asks the network twice at every step, with the prompt and without, for the same latent at the same time. Until
the text is first attended to both rows are alike: the first residual block and the first self-attention, which is one
of the five of a U-Net with the longest sequences. Whether the rows are alike is seen in the numbers, so that nothing is
asked of whoever calls. (Networks with a vector, such as Stable Diffusion XL's, have other rows from the start.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..models.unet import DownStage
from ..nn.attention import Attention, SpatialTransformer, TransformerBlock
from ..nn.sharing import with_layers
from .cpu_layers import must_be_plain

M = TypeVar("M", bound=nn.Module)
FIRST = "down.0"
"""The stage of a U-Net in which a pair is alike."""


def with_pairs(module: M, layer: Callable[[str, nn.Module], nn.Module | None]) -> M:
    """The same network with other layers, as `sharing.with_layers` makes it, and a first stage that knows pairs."""

    def each(name: str, part: nn.Module) -> nn.Module | None:
        if name != FIRST or type(part) is not DownStage:
            return layer(name, part)
        return PairedStage(with_layers(part, lambda inner, own: layer(f"{name}.{inner}", own)))

    return with_layers(module, each)


class PairedStage(DownStage):
    """The first stage over the layers of another; a pair of alike halves of a batch is computed as one of them."""

    def __init__(self, shared: DownStage) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(shared.__dict__)

    def block(self, index: int, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        if index > 0 or not (is_pair(x) and is_pair(time)):
            return super().block(index, x, time, tokens)
        half = self.resblocks[0](x[: len(x) // 2], time[: len(x) // 2])
        if not len(self.transformers):
            return _twice(half)
        transformer = self.transformers[0]
        if not _is_known(transformer):
            found: Tensor = transformer(_twice(half), tokens)
            return found
        return _transformed(transformer, half, tokens)


def is_pair(x: Tensor) -> bool:
    """Whether the second half of a batch [2B,...] repeats the first, where that is of use: without gradients, and with
    nobody who listens to torch's functions."""
    half = len(x) // 2
    return 2 * half == len(x) > 0 and not must_be_plain(x, x) and torch.equal(x[:half], x[half:])


def _is_known(transformer: nn.Module) -> bool:
    """Whether its first self-attention is a plain one that nobody listens to."""
    if type(transformer) is not SpatialTransformer or not len(transformer.blocks):
        return False
    block = transformer.blocks[0]
    watched = any(each._forward_hooks or each._forward_pre_hooks for each in (transformer, block, *block.children()))
    return type(block) is TransformerBlock and type(block.self_attention) is Attention and not watched


def _transformed(transformer: nn.Module, half: Tensor, tokens: Tensor) -> Tensor:
    """The transformer of both halves [2B,C,H,W], of which `half` [B,C,H,W] is one; what it computes is what
    `SpatialTransformer` does."""
    assert isinstance(transformer, SpatialTransformer)
    first, *others = transformer.blocks
    assert isinstance(first, TransformerBlock)
    seen = transformer.proj_in(transformer.norm(half).flatten(2).transpose(1, 2))  # [B, H W, C]
    x = _twice(seen + first.self_attention(first.self_norm(seen)))
    x = x + first.cross_attention(first.cross_norm(x), tokens)
    x = x + first.mlp(first.mlp_norm(x))
    for block in others:
        x = block(x, tokens)
    out: Tensor = _twice(half) + transformer.proj_out(x).transpose(1, 2).unflatten(2, half.shape[-2:])
    return out


def _twice(x: Tensor) -> Tensor:
    """[B,...] -> [2B,...], in the order of memory that x has."""
    return torch.cat((x, x))
