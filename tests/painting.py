"""What the tests of the pipeline paint with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from stable_diffusion.events import Images
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.request import Request


def pictures(model: StableDiffusion, request: Request, **settings: Any) -> list[Image.Image]:
    return [
        image for event in generate(model, request, **settings) if isinstance(event, Images) for image in event.images
    ]


def speckled(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    return Image.fromarray(pixels)


def half_mask(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, (size[0] // 2, 0, *size))
    mask.paste(128, (size[0] // 2 - 3, 0, size[0] // 2, size[1]))
    return mask


def straight(model: StableDiffusion, request: Request) -> torch.Tensor:
    """The one set of pictures of a request, [B,C,H,W] in [0, 1]."""
    (done,) = (event for event in generate(model, request, output="straight") if isinstance(event, Images))
    assert done.tensor is not None
    return done.tensor


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal to noise ratio in dB of pictures in [0, 1]; 200 where they are equal."""
    return float(-10 * (a - b).square().mean().clamp(min=1e-20).log10())


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The 2-norm of the difference over that of `b`."""
    return float((a - b).detach().norm() / b.detach().norm())
