"""Token merging: self-attention over fewer tokens, of which like ones are averaged before and copied back after.

Source: Bolya & Hoffman 2023, "Token merging for fast Stable Diffusion" (section 4: one destination in every 2x2 places,
self-attention alone; the fixed choice of destinations of its released code, so that a picture never depends on chance).

Shapes: B batch, N = h w tokens of a feature map, D width, n destinations, r tokens that are merged.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from .attention import SpatialTransformer, TransformerBlock

MOST = 0.75
"""The share that can be merged: three of every 2x2 places."""


class Merging:
    """Which tokens of a feature map are merged into which: the `ratio` of all that are most like a destination."""

    def __init__(self, tokens: Tensor, height: int, width: int, ratio: float) -> None:
        """tokens [B,N,D], by which likeness is judged (cosine)."""
        source, target = places(height, width, tokens.device)
        self.count = tokens.shape[1]
        merged = min(int(self.count * ratio), len(source))
        unit = tokens / tokens.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        likeness, nearest = (unit[:, source] @ unit[:, target].transpose(1, 2)).max(dim=-1)  # [B, N - n]
        order = likeness.argsort(dim=-1, descending=True, stable=True)
        self.nearest = nearest.gather(1, order[:, :merged])  # [B, r]
        self.merged, self.kept = source[order[:, :merged]], source[order[:, merged:]]  # [B, r], [B, N - n - r]
        self.target = target.expand(len(tokens), -1)

    def merge(self, x: Tensor) -> Tensor:
        """[B,N,D] -> [B,N - r,D]: those that stay, then the destinations, each the mean of what was merged into it."""
        into = _taken(x, self.target).scatter_reduce(
            1, self.nearest[..., None].expand(-1, -1, x.shape[-1]), _taken(x, self.merged), "mean", include_self=True
        )
        return torch.cat((_taken(x, self.kept), into), dim=1)

    def unmerge(self, x: Tensor) -> Tensor:
        """[B,N - r,D] -> [B,N,D]: what was merged gets what its destination has."""
        kept, into = x[:, : self.kept.shape[1]], x[:, self.kept.shape[1] :]
        out = x.new_empty(x.shape[0], self.count, x.shape[2])
        copies = (self.kept, kept), (self.target, into), (self.merged, _taken(into, self.nearest))
        for place, values in copies:
            out.scatter_(1, place[..., None].expand_as(values), values)
        return out


class MergingTransformer(SpatialTransformer):
    """A spatial transformer over the weights of another whose self-attentions see `1 - ratio` of the tokens."""

    def __init__(self, shared: SpatialTransformer, ratio: float) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(shared.__dict__)
        self.ratio = ratio

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # [B, H W, C]
        for block in self.blocks:
            assert isinstance(block, TransformerBlock)
            merging = Merging(tokens, height, width, self.ratio)
            tokens = tokens + merging.unmerge(block.self_attention(merging.merge(block.self_norm(tokens))))
            tokens = tokens + block.cross_attention(block.cross_norm(tokens), context)
            tokens = tokens + block.mlp(block.mlp_norm(tokens))
        out: Tensor = x + self.proj_out(tokens).transpose(1, 2).unflatten(2, (height, width))
        return out


@functools.lru_cache(maxsize=32)
def places(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens of a feature map by their number: those that may be merged, and the destinations, at the top left of every
    2x2 places."""
    target = torch.zeros(height, width, dtype=torch.bool, device=device)
    target[::2, ::2] = True
    numbers = torch.arange(height * width, device=device)
    return numbers[~target.flatten()], numbers[target.flatten()]


def _taken(x: Tensor, place: Tensor) -> Tensor:
    """Rows of x [B,N,D] at `place` [B,k] -> [B,k,D]."""
    return x.gather(1, place[..., None].expand(-1, -1, x.shape[-1]))
