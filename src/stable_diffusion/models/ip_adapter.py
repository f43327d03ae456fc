"""IP-Adapter: a picture as a few more tokens, which every cross-attention reads by keys and values of their own.

Source: Ye et al. 2023, "IP-Adapter: text compatible image prompt adapter for text-to-image diffusion models" (section
3.2.2, equation 5: decoupled cross-attention). The resampler of the "plus" form is that of Alayrac et al. 2022,
"Flamingo" (section 3.1.1), as the released code has it.

Shapes: B batch, F features of the image tower, G their width, N image tokens, D token width of the U-Net, h heads,
T queries, d width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from ..nn.attention import Attention, SpatialTransformer, TransformerBlock, attend
from ..nn.sharing import sharing
from .config import ModelConfig, check_divisible
from .unet import UNet

HEAD_WIDTH = 64
"""Width of the resampler's heads in all released files."""


@dataclass(frozen=True, kw_only=True)
class IPAdapterConfig(ModelConfig):
    """Shape of an adapter; the defaults are those of the plain one for Stable Diffusion 1.x.

    feature_width  G: of the picture's embedding (plain), or of the image tower's tokens (plus)
    tokens         N
    depth          layers of the resampler (plus); 0 for the plain form, which is one linear layer
    width          of the resampler    mlp_width    of its MLPs
    """

    context_dim: int = 768
    feature_width: int = 1024
    tokens: int = 4
    depth: int = 0
    width: int = 768
    mlp_width: int = 3072

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise InvalidRequest(f"tokens is {self.tokens}; expected at least 1")
        if self.depth:
            check_divisible("width", self.width, min(HEAD_WIDTH, self.width), "the width of an attention head")

    @property
    def plus(self) -> bool:
        """Whether it reads all tokens of the image tower's last but one layer, instead of its embedding."""
        return self.depth > 0


class Projection(nn.Module):
    """The plain form: [B,G] -> [B,N,D], one linear layer and a norm."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        self.tokens = config.tokens
        self.linear = nn.Linear(config.feature_width, config.tokens * config.context_dim)
        self.norm = nn.LayerNorm(config.context_dim)

    def forward(self, embedding: Tensor) -> Tensor:
        out: Tensor = self.norm(self.linear(embedding).view(len(embedding), self.tokens, -1))
        return out


class ResamplerLayer(nn.Module):
    """Latents [B,N,W] attend to features and to themselves; then an MLP. Both are added to their input."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        width, inner = config.width, config.width
        self.heads = max(1, inner // HEAD_WIDTH)
        self.feature_norm = nn.LayerNorm(width)
        self.latent_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, width, bias=False)

    def forward(self, latents: Tensor, features: Tensor) -> Tensor:
        normed = self.latent_norm(latents)
        both = torch.cat([self.feature_norm(features), normed], dim=1)  # [B, F + N, W]
        query, key, value = (self._split(tokens) for tokens in (self.query(normed), self.key(both), self.value(both)))
        latents = latents + self.out(attend(query, key, value).transpose(1, 2).flatten(2))
        out: Tensor = latents + self.down(F.gelu(self.up(self.mlp_norm(latents))))
        return out

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.view(*tokens.shape[:-1], self.heads, -1).transpose(1, 2)  # [B, h, T, d]


class Resampler(nn.Module):
    """The plus form: [B,F,G] -> [B,N,D]; N learned latents read the features, layer by layer."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, config.tokens, config.width) * config.width**-0.5)
        self.proj_in = nn.Linear(config.feature_width, config.width)
        self.layers = nn.ModuleList(ResamplerLayer(config) for _ in range(config.depth))
        self.proj_out = nn.Linear(config.width, config.context_dim)
        self.norm_out = nn.LayerNorm(config.context_dim)

    def forward(self, features: Tensor) -> Tensor:
        features = self.proj_in(features)
        latents = self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            latents = layer(latents, features)
        out: Tensor = self.norm_out(self.proj_out(latents))
        return out


class KeyValue(nn.Module):
    """The keys and values of image tokens, for one cross-attention of this width."""

    def __init__(self, context_dim: int, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(context_dim, width, bias=False)
        self.value = nn.Linear(context_dim, width, bias=False)


class IPAdapter(nn.Module):
    """The projection of a picture's features, and keys and values for each cross-attention of a U-Net.

    `widths` are those of the cross-attentions in the order of `cross_attentions`.
    """

    def __init__(self, config: IPAdapterConfig, widths: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.project = Resampler(config) if config.plus else Projection(config)
        self.layers = nn.ModuleList(KeyValue(config.context_dim, width) for width in widths)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the image tower, [B,G] or for the plus form [B,F,G] -> image tokens [B,N,D]."""
        out: Tensor = self.project(features)
        return out


def cross_attention_blocks(unet: UNet) -> list[TransformerBlock]:
    """All blocks: the way down, the way up, then the middle, which is the order of the released files."""
    found = []
    for part in (unet.down, unet.up, unet.mid):
        for module in part.modules():
            if isinstance(module, SpatialTransformer):
                found += [block for block in module.blocks if isinstance(block, TransformerBlock)]
    return found


def cross_attentions(unet: UNet) -> list[Attention]:
    """The cross-attentions in the same order."""
    return [block.cross_attention for block in cross_attention_blocks(unet)]


class DecoupledAttention(Attention):
    """A cross-attention that reads image tokens too, by each adapter's keys and values (equation 5).

    It has the tensors of `shared`. `pictures` are (keys and values, tokens [B,N,D], weight) of each adapter.
    """

    def __init__(self, shared: Attention) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(shared.__dict__)
        self.pictures: Sequence[tuple[KeyValue, Tensor, float]] = ()

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        added = torch.zeros_like(query)
        for layer, tokens, weight in self.pictures:
            image_key, image_value = (self.split_heads(part(tokens)) for part in (layer.key, layer.value))
            added = added + weight * attend(query, image_key, image_value, upcast=self.upcast)
        return super().mix(query, key, value) + added


class ImagePromptedUNet:
    """A U-Net over the weights of another whose cross-attentions read image tokens too; the other stays as it is.

    One run at a time may call it: the image tokens are kept between its layers.
    """

    def __init__(self, unet: UNet) -> None:
        self.unet = sharing(unet)
        for block in cross_attention_blocks(self.unet):
            block.cross_attention = DecoupledAttention(block.cross_attention)
        self._attentions = cross_attentions(self.unet)

    def __call__(self, pictures: Sequence[tuple[IPAdapter, Tensor, float]], *arguments: Tensor, **named: Any) -> Tensor:
        """`pictures` are (adapter, tokens [B,N,D] for each row of the batch, weight); the rest is for the U-Net."""
        for index, attention in enumerate(self._attentions):
            assert isinstance(attention, DecoupledAttention)
            attention.pictures = [(adapter.layers[index], tokens, weight) for adapter, tokens, weight in pictures]  # type: ignore[misc]
        out: Tensor = self.unet(*arguments, **named)
        return out
