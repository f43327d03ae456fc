"""The multimodal diffusion transformer (MMDiT) of Stable Diffusion 3 and 3.5.

Sources: Esser et al. 2024, "Scaling rectified flow transformers for high-resolution image synthesis" (section 4, figure
2: two streams of weights that meet in one attention; section 5.3.2 and appendix B.2: normed queries and keys, cropped
positions); Peebles & Xie 2023, "Scalable diffusion models with transformers" (patches, AdaLN-Zero); the released code
of Stable Diffusion 3.5 medium (MMDiT-X: a second attention, of the picture alone, in the first blocks).

Shapes: B batch, C channels, H W latent height and width, p patch size, N patches, T text tokens, D width, h heads, d
width of a head, V width of the pooled vector, n side of the table of positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest
from ..nn.attention import attend
from ..nn.embeddings import EmbeddingMLP, timestep_embedding
from ..types import DeepFeatures
from .config import ModelConfig, check_divisible

EPS = 1e-6
TIME_WIDTH = 256
"""Sinusoids of the timestep."""
BASE_PATCHES = 64
"""Patches along the side of the pictures that the position grid is scaled to: 1024 pixels."""

Streams = tuple[Tensor, Tensor]
"""Picture tokens [B,N,D] and text tokens [B,T,D]."""


@dataclass(frozen=True, kw_only=True)
class MMDiTConfig(ModelConfig):
    """Shape of an MMDiT; the defaults are Stable Diffusion 3 medium.

    `positions` is the side n of the square table of learned positions, in patches, from whose middle a picture takes
    its part: the largest picture has n p latents along a side. `qk_norm` norms queries and keys (3.5). The blocks
    numbered in `dual_attention` have a second attention of the picture alone (3.5 medium).
    """

    in_channels: int = 16
    out_channels: int = 16
    patch_size: int = 2
    width: int = 1536
    depth: int = 24
    heads: int = 24
    context_dim: int = 4096
    vector_dim: int = 2048
    positions: int = 192
    qk_norm: bool = False
    dual_attention: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_divisible("width", self.width, self.heads, "the number of attention heads")
        check_divisible("width", self.width, 4, "positions are sines and cosines of two axes")
        for name in ("depth", "patch_size", "positions"):
            if getattr(self, name) < 1:
                raise InvalidRequest(f"{name} is {getattr(self, name)}; expected at least 1")
        wrong = next((block for block in self.dual_attention if not 0 <= block < self.depth), None)
        if wrong is not None:
            raise InvalidRequest(f"dual_attention names block {wrong}; expected 0 to {self.depth - 1}")

    @property
    def downscale(self) -> int:
        """Latents per patch, along one side."""
        return self.patch_size

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


class Modulation(NamedTuple):
    """What time and prompt make of one sublayer: shift and scale before it, gate after it; each [B,1,D]."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights of its own, then scale and shift [B,1,D] (Peebles & Xie 2023, section 3.2)."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


class StreamAttention(nn.Module):
    """Projections of one stream around an attention that it may share with another; a stream that ends has no `out`."""

    def __init__(self, config: MMDiTConfig, *, ends: bool = False) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.query_norm = nn.RMSNorm(config.head_dim, eps=EPS) if config.qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(config.head_dim, eps=EPS) if config.qk_norm else nn.Identity()
        self.out = None if ends else nn.Linear(config.width, config.width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B,T,D] -> query, key, value, each [B,h,T,d]."""
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        return self.query_norm(query), self.key_norm(key), value

    def forward(self, x: Tensor) -> Tensor:
        """The attention of this stream alone: [B,T,D] -> [B,T,D]."""
        assert self.out is not None
        out: Tensor = self.out(attend(*self.project(x)).transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """linear, GELU (its tanh approximation), linear; inner width 4 D."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return out


class Stream(nn.Module):
    """One modality's weights in a joint block.

    A stream that `ends` here is only read: it gives keys and values to the attention and nothing comes after. One
    with `dual` attends to itself a second time beside the joint attention.
    """

    def __init__(self, config: MMDiTConfig, *, ends: bool = False, dual: bool = False) -> None:
        super().__init__()
        parts = 2 if ends else 9 if dual else 6
        self.modulation = nn.Linear(config.width, parts * config.width)
        self.attention = StreamAttention(config, ends=ends)
        self.second_attention = StreamAttention(config) if dual else None
        self.mlp = None if ends else MLP(config.width)
        # AdaLN-Zero: a new block passes its streams on unchanged
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def modulations(self, signal: Tensor) -> list[Tensor]:
        """signal [B,D] -> (shift, scale, gate) of the attention, of the MLP, of the second attention: [B,1,D] each."""
        return list(self.modulation(signal)[:, None].split(signal.shape[-1], dim=-1))

    def finish(self, x: Tensor, mixed: Tensor, parts: list[Tensor]) -> Tensor:
        """x [B,T,D] with what the joint attention found for it (`mixed` [B,h,T,d]), and through the MLP."""
        assert self.attention.out is not None and self.mlp is not None
        attention, mlp = Modulation(*parts[:3]), Modulation(*parts[3:6])
        found = x + attention.gate * self.attention.out(mixed.transpose(1, 2).flatten(2))
        if self.second_attention is not None:
            second = Modulation(*parts[6:9])
            found = found + second.gate * self.second_attention(modulated(x, second.shift, second.scale))
        out: Tensor = found + mlp.gate * self.mlp(modulated(found, mlp.shift, mlp.scale))
        return out


class JointBlock(nn.Module):
    """Picture and text, each with weights of its own, in one attention over both (Esser et al. 2024, figure 2b)."""

    def __init__(self, config: MMDiTConfig, index: int) -> None:
        super().__init__()
        self.image = Stream(config, dual=index in config.dual_attention)
        self.text = Stream(config, ends=index == config.depth - 1)

    def forward(self, image: Tensor, text: Tensor, signal: Tensor) -> Streams:
        """image [B,N,D], text [B,T,D], signal [B,D] -> both streams; in the last block the text stays as it came."""
        of_image, of_text = self.image.modulations(signal), self.text.modulations(signal)
        seen = self.image.attention.project(modulated(image, *of_image[:2]))
        read = self.text.attention.project(modulated(text, *of_text[:2]))
        query, key, value = (torch.cat(pair, dim=2) for pair in zip(seen, read, strict=True))  # [B, h, N + T, d]
        mixed = attend(query, key, value)
        by_image, by_text = mixed[:, :, : image.shape[1]], mixed[:, :, image.shape[1] :]
        image = self.image.finish(image, by_image, of_image)
        return image, text if self.text.mlp is None else self.text.finish(text, by_text, of_text)


class MMDiT(nn.Module):
    """The velocity from picture to noise at a noisy latent, led by text tokens and a pooled vector."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch_size
        self.patches = nn.Conv2d(config.in_channels, width, patch, stride=patch)
        self.positions = nn.Parameter(sincos_positions(config.positions, width)[None])  # [1, n n, D]
        self.time_mlp = EmbeddingMLP(TIME_WIDTH, width)
        self.vector_mlp = EmbeddingMLP(config.vector_dim, width)
        self.context_in = nn.Linear(config.context_dim, width)
        self.blocks = nn.ModuleList(JointBlock(config, index) for index in range(config.depth))
        self.modulation_out = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, patch * patch * config.out_channels)
        for layer in (self.modulation_out, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        tokens: Tensor,
        *,
        vector: Tensor | None = None,
        deep: DeepFeatures | None = None,
    ) -> Tensor:
        """x [B,C,H,W], timestep [B] in [0, 1000], tokens [B,T,context_dim], vector [B,V] -> [B,C_out,H,W].

        Any height and width up to n p works: what does not fill a patch is filled with copies of the edge, and cut off
        the answer. With `deep` the middle half of the blocks is left out where it says so. InvalidRequest where the
        latent is larger or the vector is missing.
        """
        if vector is None:
            raise InvalidRequest(f"this MMDiT needs a vector of width {self.config.vector_dim}, and none was given")
        height, width = x.shape[-2:]
        patch = self.config.patch_size
        x = F.pad(x, (0, -width % patch, 0, -height % patch), mode="replicate")
        rows, columns = x.shape[-2] // patch, x.shape[-1] // patch
        image = self.patches(x).flatten(2).transpose(1, 2) + self.cropped(rows, columns)  # [B, N, D]
        text = self.context_in(tokens)  # [B, T, D]
        time = self.time_mlp(timestep_embedding(timestep, TIME_WIDTH).to(x.dtype))
        signal = F.silu(time + self.vector_mlp(vector))  # [B, D]
        image = self._through(image, text, signal, deep)
        shift, scale = self.modulation_out(signal)[:, None].chunk(2, dim=-1)
        out = self.out(modulated(image, shift, scale))  # [B, N, p p C_out]
        out = out.unflatten(1, (rows, columns)).unflatten(3, (patch, patch, -1))  # [B, rows, columns, p, p, C_out]
        whole: Tensor = out.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)  # [B, C_out, p rows, p columns]
        return whole[..., :height, :width]

    def _through(self, image: Tensor, text: Tensor, signal: Tensor, deep: DeepFeatures | None) -> Tensor:
        """All blocks. What the middle half of them adds to both streams changes slowly from step to step (Chen et al.
        2024, "Delta-DiT"): it is kept in `deep`, or taken from there and those blocks are left out."""
        quarter = max(1, len(self.blocks) // 4)
        first, last = quarter, len(self.blocks) - quarter
        deep = deep if first < last else None
        for index, block in enumerate(self.blocks):
            if deep is not None and index == first:
                before = image, text
            if deep is None or not deep.reuse or not first <= index < last:
                image, text = block(image, text, signal)
            if deep is None or index != last - 1:
                continue
            if deep.reuse:
                image, text = before[0] + deep.kept[0], before[1] + deep.kept[1]
            else:
                deep.kept = (image - before[0], text - before[1])
        return image

    def cropped(self, rows: int, columns: int) -> Tensor:
        """The middle part of the table of positions for a picture of that many patches: [1, rows columns, D]."""
        side = self.config.positions
        if rows > side or columns > side:
            most = side * self.config.patch_size
            patch = self.config.patch_size
            raise InvalidRequest(
                f"the latent is {columns * patch}x{rows * patch}; this model has positions for at most {most}x{most}"
            )
        top, left = (side - rows) // 2, (side - columns) // 2
        table = self.positions.view(1, side, side, -1)
        return table[:, top : top + rows, left : left + columns].flatten(1, 2)


def sincos_positions(side: int, width: int, base: int = BASE_PATCHES) -> Tensor:
    """[side side, width]: for each patch in reading order sines and cosines of its column, then of its row.

    A quarter of the width each, with frequencies falling from 1 to (almost) 1 / 10000, of places that are scaled so
    that the whole table has the span of `base` patches (Vaswani et al. 2017 in two dimensions, as in Dosovitskiy et
    al. 2021, appendix D.4; the scaling is Stable Diffusion 3's).
    """
    quarter = width // 4
    frequency = torch.exp(-math.log(10_000.0) / quarter * torch.arange(quarter, dtype=torch.float64))
    angle = (torch.arange(side, dtype=torch.float64) * base / side)[:, None] * frequency  # [side, width / 4]
    line = torch.cat((angle.sin(), angle.cos()), dim=-1).float()  # [side, width / 2]
    by_column = line[None].expand(side, -1, -1)
    by_row = line[:, None].expand(-1, side, -1)
    return torch.cat((by_column, by_row), dim=-1).flatten(0, 1)
