"""A CLIP image encoder that the user has: a second, larger eye, for distances that can be compared between projects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..models.clip_image import clip_pixels
from ..models.clip_vision import CLIPVision
from ..pipeline.image import to_images
from ..weights.networks.clip_vision import load_clip_vision

CHUNK = 16


@dataclass(frozen=True, eq=False, kw_only=True)
class ClipEye:
    """An image encoder and its name."""

    network: CLIPVision
    name: str

    @torch.no_grad()
    def look(self, pictures: Tensor) -> Tensor:
        """Straight pictures [B, 3 or 4, H, W] from 0 to 1, seen over white -> embeddings [B,P], not normalised."""
        size, parts = self.network.config.image_size, torch.split(pictures, CHUNK)
        return torch.cat([self.network(clip_pixels(to_images(rows), size)).embedding.float() for rows in parts])


def load_clip_eye(path: str | Path) -> ClipEye:
    """From a transformers folder or a single file, as `load_clip_vision` reads them, with its errors."""
    return ClipEye(network=load_clip_vision(path), name=Path(path).stem)
