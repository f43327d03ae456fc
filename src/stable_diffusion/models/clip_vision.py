"""The CLIP image tower: a vision transformer that puts a picture where its caption is.

Sources: Dosovitskiy et al. 2021, "An image is worth 16x16 words" (section 3.1); Radford et al. 2021, "Learning
transferable visual models from natural language supervision" (section 2.4: a norm before the layers, and the class
token's projection as embedding); Cherti et al. 2023, "Reproducible scaling laws for contrastive language-image
learning" (OpenCLIP's H and bigG, which IP-Adapters read).

Shapes: B batch, S side of the picture, N patches, D width, P embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InvalidRequest, unknown_choice
from .clip import ACTIVATIONS, CLIPLayer
from .config import ModelConfig, check_divisible


@dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig(ModelConfig):
    """Shape of an image tower; the defaults are those of OpenCLIP ViT-H/14."""

    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp_width: int = 5120
    image_size: int = 224
    patch_size: int = 14
    projection_dim: int = 1024
    activation: str = "gelu"

    def __post_init__(self) -> None:
        check_divisible("width", self.width, self.heads, "the number of attention heads")
        check_divisible("image_size", self.image_size, self.patch_size, "the side of a patch")
        if self.activation not in ACTIVATIONS:
            raise unknown_choice("activation", self.activation, ACTIVATIONS)

    @property
    def patches(self) -> int:
        """N, the number of patches of a picture."""
        return int((self.image_size // self.patch_size) ** 2)


class VisionFeatures(NamedTuple):
    """`embedding` [B,P]: the picture as one vector, not normalised. `tokens` [B,1+N,D]: the class token and the patches
    in reading order, as the chosen layer leaves them."""

    embedding: Tensor
    tokens: Tensor


class CLIPVision(nn.Module):
    """Pictures to one vector each, and to one vector per patch."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.position_embedding = nn.Parameter(torch.empty(1 + config.patches, config.width))
        self.norm_in = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(CLIPLayer(config, causal=False) for _ in range(config.layers))
        self.norm_out = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.projection_dim, bias=False)
        for parameter in (self.class_embedding, self.position_embedding):
            nn.init.normal_(parameter, std=config.width**-0.5)

    def forward(self, pixels: Tensor, *, layer: int = -1) -> VisionFeatures:
        """pixels [B,3,S,S], normalised as CLIP's are (mean about 0, spread about 1) -> VisionFeatures.

        `layer` chooses whose output becomes `tokens`, before any norm: -1 the last layer's, -2 the last but one's, and
        so on. InvalidRequest where the side of the picture or `layer` does not fit.
        """
        side, depth = self.config.image_size, len(self.layers)
        if tuple(pixels.shape[1:]) != (3, side, side):
            raise InvalidRequest(
                f"a picture of shape {tuple(pixels.shape[1:])} was given; expected (3, {side}, {side})"
            )
        if not -depth <= layer <= -1:
            raise InvalidRequest(f"layer is {layer}; expected {-depth} to -1, as there are {depth} layers")
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)  # [B, N, D]
        x = torch.cat([self.class_embedding.expand(len(pixels), 1, -1), patches], dim=1)  # [B, 1 + N, D]
        x = self.norm_in(x + self.position_embedding)
        outputs = []
        for block in self.layers:
            x = block(x)
            outputs.append(x)
        return VisionFeatures(self.projection(self.norm_out(x[:, 0])), outputs[layer])
