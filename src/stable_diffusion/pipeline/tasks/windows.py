"""Canvases larger than a model was made for: overlapping windows, averaged at every step.

Bar-Tal et al. 2023, "MultiDiffusion: fusing diffusion paths for controlled image generation", equation 5: the step of
the whole canvas is the one nearest to the steps of all windows, which is their weighted mean at each place. Weights
fall smoothly towards the edge of a window, so that none shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...request.settings import Wrap
from ...types import CondDenoiser, Conditioning
from .control import Controlled
from .seamless import wrapping


@dataclass(frozen=True)
class Windows:
    """Windows of (height, width) latents that share at least `overlap` latents with the next one."""

    height: int
    width: int
    overlap: int

    def places(self, height: int, width: int, wrap: Wrap) -> list[tuple[Tensor, Tensor]]:
        """(rows, columns) of each window on a canvas of that size, in reading order; every place is in at least one."""
        down = list(_starts(height, self.height, self.overlap, wrap.y))
        across = list(_starts(width, self.width, self.overlap, wrap.x))
        rows = [(torch.arange(min(self.height, height)) + first) % height for first in down]
        columns = [(torch.arange(min(self.width, width)) + first) % width for first in across]
        return [(row, column) for row in rows for column in columns]


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


def windowed(denoise: CondDenoiser, windows: Windows, wrap: Wrap) -> CondDenoiser:
    """The denoiser of a large canvas from one of windows: x0 [B,C,H,W] is the weighted mean of the windows' x0.

    Side networks see the part of their picture that is in the window. Windows go over edges that meet; inside a window
    the edges meet only where it is as long as the canvas.
    """

    def fused(x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        height, width = x.shape[-2:]
        full_height, full_width = windows.height >= height, windows.width >= width
        if full_height and full_width:
            return wrapping(denoise, wrap)(x, sigma, conditioning)
        inner = Wrap(x=wrap.x and full_width, y=wrap.y and full_height, sphere=False)
        total, weights = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
        weight = window_weight(min(windows.height, height), min(windows.width, width)).to(x)
        for rows, columns in windows.places(height, width, wrap):
            place = (..., rows[:, None].to(x.device), columns.to(x.device))
            seen = denoise.at(rows, columns, (height, width)) if isinstance(denoise, Controlled) else denoise
            x0 = wrapping(seen, inner)(x[place], sigma, _cut(conditioning, place))
            total[place] += weight * x0
            weights[place] += weight
        return total / weights

    return fused


def _cut(conditioning: Conditioning, place: tuple[object, ...]) -> Conditioning:
    if conditioning.image is None:
        return conditioning
    return replace(conditioning, image=conditioning.image[place])  # type: ignore[index]  # an ellipsis and two tensors


def window_weight(height: int, width: int) -> Tensor:
    """[height,width]: a bump that falls to nearly 0 at the edge, sin^2 of the place between the edges in each axis."""
    rows, columns = (torch.sin((torch.arange(n) + 0.5) / n * math.pi) ** 2 for n in (height, width))
    return rows[:, None] * columns
