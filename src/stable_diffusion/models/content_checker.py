"""The released check of pictures for content: how near a picture is to some concepts, each with a threshold.

Sources: the safety checker released with Stable Diffusion 1 (CompVis); Rando et al. 2022, "Red-teaming the Stable
Diffusion safety filter" (section 2: the angle between a picture's CLIP embedding and those of concepts, thresholds that
fall where a picture needs special care).

Shapes: B batch, S side of the picture, P embedding width, K concepts, M concepts that need special care.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from .clip_image import clip_pixels
from .clip_vision import CLIPVision, CLIPVisionConfig

if TYPE_CHECKING:
    from PIL.Image import Image

CARE = 0.01
"""What a concept of special care adds to the scores after it."""
DIGITS = 3
"""Decimal places of a score: what is rounded to nothing is no find."""


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
