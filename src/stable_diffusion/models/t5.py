"""The encoder of T5 v1.1, the third text encoder of Stable Diffusion 3.

Sources: Raffel et al. 2020, "Exploring the limits of transfer learning with a unified text-to-text transformer"
(section 2.1: no biases, relative positions added to the attention logits, unscaled dot products); Shazeer 2020, "GLU
variants improve transformer" (the gated GELU of v1.1); Zhang & Sennrich 2019, "Root mean square layer normalization".

Shapes: B batch, T tokens, D width, h heads, d width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from .config import ModelConfig

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class T5Config(ModelConfig):
    """Shape of an encoder; the defaults are T5 v1.1 XXL.

    Distances between tokens fall into `buckets`, half of them for each direction; all beyond `max_distance` share one.
    """

    vocab_size: int = 32128
    width: int = 4096
    layers: int = 24
    heads: int = 64
    head_dim: int = 64
    mlp_width: int = 10240
    buckets: int = 32
    max_distance: int = 128

    def __post_init__(self) -> None:
        if self.buckets < 4 or self.buckets % 2:
            raise InvalidRequest(f"buckets is {self.buckets}; expected an even number of at least 4")
        if self.max_distance <= self.buckets // 4:
            raise InvalidRequest(f"max_distance is {self.max_distance}; expected more than {self.buckets // 4}")


class Attention(nn.Module):
    """Self-attention without scaling or biases; `bias` [1,h,T,T] on the logits tells how far apart tokens are."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.query = nn.Linear(config.width, inner, bias=False)
        self.key = nn.Linear(config.width, inner, bias=False)
        self.value = nn.Linear(config.width, inner, bias=False)
        self.out = nn.Linear(inner, config.width, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # [B, h, T, d]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype), scale=1.0)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) * up(x)), with the tanh approximation of GELU."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.gelu(self.gate(x), approximate="tanh") * self.up(x)
        if x.dtype == torch.float16:  # the sums of this product leave the range of float16
            return F.linear(inner.float(), self.down.weight.float())
        out: Tensor = self.down(inner)
        return out


class T5Layer(nn.Module):
    """Attention and gated MLP, each normed before and added to its input.

    The residual x is float32 whatever the weights are: trained T5 carries values in it beyond the range of float16.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=EPS)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=EPS)
        self.mlp = GatedMLP(config)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.attention(normed(self.attention_norm, x), bias).float()
        out: Tensor = x + self.mlp(normed(self.mlp_norm, x)).float()
        return out


class T5Encoder(nn.Module):
    """Token ids to one vector per token."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_bias = nn.Embedding(config.buckets, config.heads)
        self.layers = nn.ModuleList(T5Layer(config) for _ in range(config.layers))
        self.final_norm = nn.RMSNorm(config.width, eps=EPS)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B,T], any length -> [B,T,D], in the precision of the weights. Padding is read like any other token."""
        places = torch.arange(ids.shape[-1], device=ids.device)
        distance = places[None, :] - places[:, None]  # [T, T], from query to key
        buckets = relative_bucket(distance, self.config.buckets, self.config.max_distance)
        bias = self.position_bias(buckets).permute(2, 0, 1)[None]  # [1, h, T, T]
        x = self.token_embedding(ids).float()  # [B, T, D]
        for layer in self.layers:
            x = layer(x, bias)
        return normed(self.final_norm, x)


def normed(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """The norm of a float32 x, in float32, then in the precision of its weight."""
    assert norm.weight is not None
    return F.rms_norm(x, norm.normalized_shape, eps=norm.eps).to(norm.weight.dtype) * norm.weight


def relative_bucket(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Distances between tokens, of any shape -> bucket numbers (Raffel et al. 2020, section 2.1).

    The upper half of the numbers is for keys after the query. In each half the first half of the buckets holds one
    distance each, and the others grow geometrically up to `max_distance`.
    """
    half = buckets // 2
    exact = half // 2
    size = distance.abs()
    growth = (size.clamp(min=1).float() / exact).log() / math.log(max_distance / exact) * (half - exact)
    far = (exact + growth.to(torch.long)).clamp(max=half - 1)
    return torch.where(size < exact, size, far) + half * (distance > 0).long()
