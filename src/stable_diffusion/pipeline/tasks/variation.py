"""Variation seeds: start noise on the way from one seed's to another's, and noise drawn at another size.

As A1111 does it: noise is interpolated on the sphere (slerp), and noise of another size is laid on the middle of the
canvas, so that a composition is kept when the size changes. The noise of later steps is that of the main seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...request.settings import VariationSeed
from ...types import NoiseSource

Draw = Callable[[Sequence[int], tuple[int, ...]], NoiseSource]
"""(seeds, shape [c,h,w]) -> the noise of these seeds."""


class VariedNoise:
    """A noise source with another start; all later noise is drawn as if there were no variation."""

    def __init__(self, source: NoiseSource, start: Tensor) -> None:
        self._source, self._start = source, start

    def start(self) -> Tensor:
        return self._start.clone()

    def __call__(self, sigma: Tensor | float, sigma_next: Tensor | float) -> Tensor:
        return self._source(sigma, sigma_next)


def varied(
    draw: Draw, seeds: Sequence[int], shape: tuple[int, ...], variations: Sequence[VariationSeed], downscale: int
) -> NoiseSource:
    """The noise of `seeds`, with its start varied; exactly `draw(seeds, shape)` where there is no variation.

    variations  one for each picture, which differ in their seeds alone, or none; their sizes are in pixels, of which a
                latent has `downscale` on a side
    """
    source = draw(seeds, shape)
    if not variations:
        return source
    strength, resize_from = variations[0].strength, variations[0].resize_from
    size = shape[1:] if resize_from is None else (resize_from[1] // downscale, resize_from[0] // downscale)
    if strength == 0 and size == shape[1:]:
        return source
    drawn = (shape[0], *size)
    noise = source.start() if drawn == shape else draw(seeds, drawn).start()
    if strength > 0:
        others = [each.seed or 0 for each in variations]
        noise = slerp(strength, noise, draw(others, drawn).start())
    return VariedNoise(source, noise if drawn == shape else centred(noise, source.start()))


def slerp(amount: float, low: Tensor, high: Tensor) -> Tensor:
    """From `low` (amount 0) to `high` (1) at constant speed along the arc between them: [B,c,h,w].

    sin((1 - a) w) / sin w * low + sin(a w) / sin w * high, where w is the angle between the two (Shoemake 1985,
    section 3.3). The angle is taken for every column of every channel, which is what A1111 does and what its pictures
    hold; on average the noise keeps variance 1. Straight between columns that point the same way or opposite ways.
    """
    a, b = low.double(), high.double()
    lengths = a.norm(dim=-2, keepdim=True) * b.norm(dim=-2, keepdim=True)
    cosine = torch.where(lengths > 0, (a * b).sum(-2, keepdim=True) / lengths, 1.0)  # nothing has no direction
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    straight = sine < 1e-4
    sine = torch.where(straight, 1.0, sine)
    weight_low = torch.where(straight, 1 - amount, ((1 - amount) * angle).sin() / sine)
    weight_high = torch.where(straight, amount, (amount * angle).sin() / sine)
    return (weight_low * a + weight_high * b).to(low.dtype)


def centred(noise: Tensor, around: Tensor) -> Tensor:
    """`noise` [B,c,h,w] laid on the middle of `around` [B,c,H,W], or its middle cut out where it is larger."""
    result = around.clone()
    for_rows = _overlap(noise.shape[-2], around.shape[-2])
    for_columns = _overlap(noise.shape[-1], around.shape[-1])
    result[..., for_rows[1], for_columns[1]] = noise[..., for_rows[0], for_columns[0]]
    return result


def _overlap(source: int, target: int) -> tuple[slice, slice]:
    """The middle of `source` elements and of `target` elements.

    As many as the shorter has, but one less where `source` is longer by an odd number: A1111 cuts both ends alike.
    """
    gap = (target - source) // 2
    length = source + 2 * min(gap, 0)
    first_source, first_target = max(-gap, 0), max(gap, 0)
    return slice(first_source, first_source + length), slice(first_target, first_target + length)
