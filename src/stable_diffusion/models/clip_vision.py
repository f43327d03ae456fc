"""The CLIP image encoder: a vision transformer that sees a picture as one vector in the space of its text encoder.

Sources: Radford et al. 2021, "Learning transferable visual models from natural language supervision" (section 2.4);
Dosovitskiy et al. 2021, "An image is worth 16x16 words" (section 3.1); Cherti et al. 2023 (OpenCLIP H and bigG).

Shapes: B batch, N patches, D width, P width of the embedding, H W picture height and width, S the model's picture size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidRequest, unknown_choice
from .clip import ACTIVATIONS, Layer
from .config import ModelConfig, check_divisible

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels of CLIP's training pictures, per channel, from 0 to 1 (Radford et al. 2021, released code)."""


@dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig(ModelConfig):
    """Shape of an image encoder; the defaults are CLIP ViT-L/14's."""

    image_size: int = 224
    patch_size: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_width: int = 4096
    activation: str = "quick_gelu"
    projection_dim: int = 768

    def __post_init__(self) -> None:
        check_divisible("width", self.width, self.heads, "the number of attention heads")
        if self.activation not in ACTIVATIONS:
            raise unknown_choice("activation", self.activation, ACTIVATIONS)
        if not 0 < self.patch_size <= self.image_size:
            raise InvalidRequest(f"patch_size is {self.patch_size}; expected 1 to {self.image_size}, the picture size")

    @property
    def patches(self) -> int:
        """N; pixels beyond the last whole patch are not seen."""
        return (self.image_size // self.patch_size) ** 2


class VisionFeatures(NamedTuple):
    """`tokens` [B,N+1,D]: the class token and one vector per patch; `embedding` [B,P]: the picture, not normalised."""

    tokens: Tensor
    embedding: Tensor


class CLIPVision(nn.Module):
    """Pictures to one vector per patch and one per picture."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.position_embedding = nn.Parameter(torch.empty(config.patches + 1, config.width))
        self.first_norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(Layer(config, causal=False) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.projection_dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The embeddings start small and random; layers and norms as torch makes them."""
        for embedding in (self.class_embedding, self.position_embedding):
            nn.init.normal_(embedding, std=self.config.width**-0.5)

    def forward(self, image: Tensor, *, layer: int = -1) -> VisionFeatures:
        """[B,3,S,S] from `prepared` -> VisionFeatures.

        `layer` chooses whose output becomes `tokens`: -1 the last layer's, -2 the last but one's, and so on; 0 the
        embeddings', 1 the first layer's. They are not normed. `embedding` is the last layer's class token, normed and
        projected. InvalidRequest where the size or `layer` does not fit.
        """
        size, depth = self.config.image_size, len(self.layers)
        if image.shape[1:] != (3, size, size):
            raise InvalidRequest(f"a picture of shape {list(image.shape[1:])} was given; expected {[3, size, size]}")
        if not -depth - 1 <= layer <= depth:
            raise InvalidRequest(f"layer is {layer}; expected {-depth - 1} to {depth}, as there are {depth} layers")
        patches = self.patch_embedding(image).flatten(2).transpose(1, 2)  # [B, N, D]
        first = self.class_embedding.expand(len(image), 1, -1)
        outputs = [self.first_norm(torch.cat([first, patches], dim=1) + self.position_embedding)]  # [B, N + 1, D]
        for block in self.layers:
            outputs.append(block(outputs[-1]))
        return VisionFeatures(outputs[layer], self.projection(self.final_norm(outputs[-1][:, 0])))


def prepared(pictures: Tensor, size: int) -> Tensor:
    """Pictures [B,3,H,W] from 0 to 1 -> [B,3,size,size] as CLIP was trained to see them.

    The shorter side is scaled to `size` (bicubic, antialiased, rounded to 8 bits), the middle is cut out, and the
    channels are normalised to `MEAN` and `STD`.
    """
    height, width = pictures.shape[-2:]
    if (height, width) != (size, size):
        short = min(height, width)
        scaled = (max(size, size * height // short), max(size, size * width // short))
        pictures = F.interpolate(pictures.float(), size=scaled, mode="bicubic", antialias=True)
        pictures = (pictures.clamp(0, 1) * 255).round() / 255
        top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
        pictures = pictures[..., top : top + size, left : left + size]
    mean, std = (pictures.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pictures - mean) / std
