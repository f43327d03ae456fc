"""Canvases larger than a model was made for: overlapping windows, averaged at every step.

Bar-Tal et al. 2023, "MultiDiffusion: fusing diffusion paths for controlled image generation", equation 5: the step of
the whole canvas is the one nearest to the steps of all windows, which is their weighted mean at each place. Weights
fall smoothly towards the edge of a window, so that none shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ...request.settings import Wrap
from ...types import CondDenoiser, Conditioning
from .control import ControlledDenoiser
from .seamless import wrapping


def window_places(height: int, width: int, wrap: Wrap, window: int, overlap: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, columns) of each window on a canvas of that size, in reading order; every place is in at least one.

    Windows are `window` latents on a side and share at least `overlap` latents with the next one.
    """
    for top in _starts(height, window, overlap, wrap.y):
        for left in _starts(width, window, overlap, wrap.x):
            rows = (torch.arange(min(window, height)) + top) % height
            columns = (torch.arange(min(window, width)) + left) % width
            yield rows, columns


def _starts(length: int, window: int, overlap: int, ring: bool) -> Iterator[int]:
    """First places of windows spread evenly over `length`; around a ring the last one meets the first."""
    if window >= length:
        yield 0
        return
    step = window - min(overlap, window - 1)
    if ring:
        count = math.ceil(length / step)
        yield from (round(i * length / count) for i in range(count))
    else:
        count = math.ceil((length - window) / step) + 1
        yield from (round(i * (length - window) / (count - 1)) for i in range(count))


def windowed(denoise: CondDenoiser, wrap: Wrap, window: int = 0, overlap: int = 0) -> CondDenoiser:
    """The denoiser of a canvas whose edges meet as `wrap` says, and with a `window`, of one larger than the network's
    own size: x0 [B,C,H,W] is then the weighted mean of the windows' x0.

    Controls see the part of their picture that is in the window. Windows go over edges that meet; inside a window the
    edges meet only where it is as long as the canvas.
    """
    whole = wrapping(denoise, wrap)

    def fused(x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        height, width = x.shape[-2:]
        full_height, full_width = window >= height, window >= width
        if full_height and full_width:
            return whole(x, sigma, conditioning)
        inner = Wrap(x=wrap.x and full_width, y=wrap.y and full_height, sphere=False)
        total, weights = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
        weight = window_weight(min(window, height), min(window, width)).to(x)
        for rows, columns in window_places(height, width, wrap, window, overlap):
            place = (..., rows[:, None].to(x.device), columns.to(x.device))
            part = denoise.at(rows, columns, (height, width)) if isinstance(denoise, ControlledDenoiser) else denoise
            x0 = wrapping(part, inner)(x[place], sigma, _cut(conditioning, place))
            total[place] += weight * x0
            weights[place] += weight
        return total / weights

    return fused if window else whole


def _cut(conditioning: Conditioning, place: tuple[object, ...]) -> Conditioning:
    if conditioning.image is None:
        return conditioning
    return replace(conditioning, image=conditioning.image[place])  # type: ignore[index]  # an ellipsis and two tensors


def window_weight(height: int, width: int) -> Tensor:
    """[height,width]: a bump that falls to nearly 0 at the edge, sin^2 of the place between the edges in each axis."""
    rows, columns = (torch.sin((torch.arange(n) + 0.5) / n * math.pi) ** 2 for n in (height, width))
    return rows[:, None] * columns
