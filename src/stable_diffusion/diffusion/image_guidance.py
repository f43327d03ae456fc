"""Guidance by a picture and by text at once, for networks that edit a picture as they are told.

Source: Brooks et al. 2023, "InstructPix2Pix", equation 3:
e = e(no picture, no text) + s_I (e(picture, no text) - e(no picture, no text)) + s_T (e(picture, text) - e(picture, no
text)). It is written for x0 here, which is the same, because at a fixed x x0 is affine in the network's answer.

Shapes: B batch, C channels, H W latent size; sigma [B].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InvalidRequest
from ..types import Blend, CondDenoiser, Conditioning, PairDenoiser

IMAGE_GUIDANCE = 1.5
"""s_I where none is given, as in the paper."""


def image_guided(
    denoiser: CondDenoiser, cond: Conditioning | Blend, uncond: Conditioning, scale: float, image_scale: float
) -> PairDenoiser:
    """`denoiser` led by text (`scale`, s_T) and by the picture in `image` of both conditionings (`image_scale`, s_I).

    Conditionings have one row, or one for each image. Several with weights are composed as in `guided`: what e(picture,
    text) is above is then e(picture, no text) + sum of weight * (e(picture, text i) - e(picture, no text)).
    InvalidRequest where a scale is not finite, or there is no
    picture.
    """
    for name, value in (("guidance", scale), ("image guidance", image_scale)):
        if not math.isfinite(value):
            raise InvalidRequest(f"{name} {value}: expected a finite number")
    blend = ((cond, 1.0),) if isinstance(cond, Conditioning) else cond
    if uncond.image is None or any(each.image is None for each, _ in blend):
        raise InvalidRequest("guidance by a picture needs the picture in both conditionings")
    return _ImageGuided(denoiser, blend, uncond, scale, image_scale)


@dataclass(frozen=True)
class _ImageGuided:
    """What `image_guided` returns: a `PairDenoiser`."""

    base: CondDenoiser
    cond: Blend
    uncond: Conditioning
    scale: float
    image_scale: float

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.pair(x, sigma)[0]

    def pair(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """x0 with all guidance, and that of the picture without text."""
        assert self.uncond.image is not None
        blank = replace(self.uncond, image=torch.zeros_like(self.uncond.image))
        pictured, empty = (self._ask(x, sigma, each) for each in (self.uncond, blank))
        guided = empty + self.image_scale * (pictured - empty)
        for cond, weight in self.cond:
            guided = guided + self.scale * weight * (self._ask(x, sigma, cond) - pictured)
        return guided, pictured

    def _ask(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        rows = conditioning if len(conditioning.tokens) == len(x) else conditioning.repeat(len(x))
        return self.base(x, sigma, rows)
