"""Attention and transformer blocks.

Sources: Vaswani et al. 2017, "Attention is all you need" (section 3.2); Rombach et al. 2022, "High-resolution image
synthesis with latent diffusion models" (section 3.3 and appendix E.2.1: the block of self-attention, cross-attention
and gated MLP); Shazeer 2020, "GLU variants improve transformer" (GEGLU).

Shapes: B batch, T query tokens, S key tokens, D width, h heads, d width of a head, C channels, H W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .chunked_attention import can_be_chunked, chunked_attention


class Preference:
    """Whether long sequences in bfloat16 on a CPU are attended to in chunks, as measured on this processor."""

    chunked = False


def attend(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False, upcast: bool = False) -> Tensor:
    """softmax(query key^T / sqrt(d)) value, for query [B,h,T,d], key and value [B,h,S,d] -> [B,h,T,d].

    `upcast` computes float16 inputs in float32: some models (Stable Diffusion 2.1) have logits beyond float16's range.
    bfloat16 has the range of float32 and stays as it is.
    """
    if upcast and query.dtype == torch.float16:
        with torch.autocast(query.device.type, enabled=False):
            return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), is_causal=causal).half()
    if Preference.chunked and can_be_chunked(query, key, causal=causal):
        return chunked_attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal)


class Attention(nn.Module):
    """Multi-head attention from tokens [B,T,D] to `context` [B,S,context_width], or to themselves without one."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        context_width: int | None = None,
        bias: bool = False,
        causal: bool = False,
        upcast: bool = False,
    ) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} is not divisible by {heads} heads"
        context_width = width if context_width is None else context_width
        self.heads, self.causal, self.upcast = heads, causal, upcast
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(context_width, width, bias=bias)
        self.value = nn.Linear(context_width, width, bias=bias)
        self.out = nn.Linear(width, width)

    def split_heads(self, tokens: Tensor) -> Tensor:
        """[B,T,D] -> [B,h,T,d], a view."""
        return tokens.view(*tokens.shape[:-1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        query = self.split_heads(self.query(x))  # [B, h, T, d]
        key = self.split_heads(self.key(context))  # [B, h, S, d]
        value = self.split_heads(self.value(context))  # [B, h, S, d]
        out: Tensor = self.out(self.mix(query, key, value).transpose(1, 2).flatten(2))  # [B, T, D]
        return out

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The values that each query gets: [B,h,T,d], from key and value [B,h,S,d]."""
        return attend(query, key, value, causal=self.causal, upcast=self.upcast)

    def weights(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The attention probabilities [B,h,T,S] that `forward` uses, in float32: for heat maps, not for speed."""
        context = x if context is None else context
        query, key = self.split_heads(self.query(x)).float(), self.split_heads(self.key(context)).float()
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # [B, h, T, S]
        if self.causal:
            future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
            logits = logits.masked_fill(future, float("-inf"))
        probabilities: Tensor = logits.softmax(dim=-1)
        return probabilities


class GatedMLP(nn.Module):
    """GEGLU: down(value * gelu(gate)) with [value, gate] = up(x), inner width 4 D."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 8 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(x).chunk(2, dim=-1)  # [B, T, 4 D] each
        out: Tensor = self.down(value * F.gelu(gate))
        return out


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the text, gated MLP; each normed before and added to its input."""

    def __init__(self, width: int, heads: int, context_width: int, *, upcast: bool = False) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads, upcast=upcast)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads, context_width=context_width, upcast=upcast)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = GatedMLP(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.self_attention(self.self_norm(x))
        x = x + self.cross_attention(self.cross_norm(x), context)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of a feature map [B,C,H,W], as one residual.

    The projections are matrices over channels, whether a checkpoint stores them as linear layers or 1x1 convolutions.
    """

    def __init__(
        self, channels: int, heads: int, depth: int, context_width: int, *, groups: int = 32, upcast: bool = False
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context_width, upcast=upcast) for _ in range(depth)
        )
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # [B, H W, C]
        for block in self.blocks:
            tokens = block(tokens, context)
        # A view with the strides of channels_last; x comes first in the sum, so that the sum keeps the layout of x.
        out: Tensor = x + self.proj_out(tokens).transpose(1, 2).unflatten(2, (height, width))
        return out
