"""The CLIP image tower: a vision transformer that puts a picture where its caption is.

Sources: Dosovitskiy et al. 2021, "An image is worth 16x16 words" (section 3.1); Radford et al. 2021, "Learning
transferable visual models from natural language supervision" (section 2.4: a norm before the layers, and the class
token's projection as embedding); Cherti et al. 2023, "Reproducible scaling laws for contrastive language-image
learning" (OpenCLIP's H and bigG, which IP-Adapters read).

`ContentChecker` is the released check of pictures for content, which reads the tower's embedding: CompVis' safety
checker; Rando et al. 2022, "Red-teaming the Stable Diffusion safety filter" (section 2: the angle between a picture
and concepts, with thresholds that fall where a picture needs special care).

Shapes: B batch, S side of the picture, N patches, D width, P embedding width, K concepts, M concepts of special care.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..errors import InvalidRequest, unknown_choice
from .clip import ACTIVATIONS, CLIPLayer
from .clip_image import clip_pixels
from .config import ModelConfig, check_divisible

if TYPE_CHECKING:
    from PIL.Image import Image

CARE = 0.01
"""What a concept of special care adds to the scores after it."""
DIGITS = 3
"""Decimal places of a score: what is rounded to nothing is no find."""


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


class ContentChecker(nn.Module):
    """Says which pictures show one of the concepts that it was released with."""

    def __init__(self, config: CLIPVisionConfig, concepts: int, care: int) -> None:
        super().__init__()
        self.tower = CLIPVision(config)
        self.concepts = nn.Parameter(torch.zeros(concepts, config.projection_dim))  # [K,P]
        self.concept_thresholds = nn.Parameter(torch.ones(concepts))
        self.care = nn.Parameter(torch.zeros(care, config.projection_dim))  # [M,P]
        self.care_thresholds = nn.Parameter(torch.ones(care))

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [B,3,S,S] as CLIP's -> for each picture whether it is flagged, [B] of booleans."""
        embedding = normalize(self.tower(pixels).embedding.float(), dim=-1)  # [B,P]
        care = embedding @ normalize(self.care.float(), dim=-1).T - self.care_thresholds  # [B,M]
        scores = embedding @ normalize(self.concepts.float(), dim=-1).T - self.concept_thresholds  # [B,K]
        adjustment = torch.zeros(len(pixels), device=scores.device)
        for score in care.unbind(1):  # one after another: each also counts for those after it
            adjustment = torch.where(torch.round(score + adjustment, decimals=DIGITS) > 0, CARE, adjustment)
        return (torch.round(scores + adjustment[:, None], decimals=DIGITS) > 0).any(dim=1)

    @torch.inference_mode()
    def flags(self, images: Sequence[Image]) -> list[bool]:
        """For each picture, of any size and mode, whether it is flagged; transparent parts are taken as white."""
        if not images:
            return []
        place = self.concepts
        pixels = clip_pixels(images, self.tower.config.image_size).to(place.device, place.dtype)
        found: list[bool] = self(pixels).tolist()
        return found
