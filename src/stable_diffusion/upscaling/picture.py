"""A Pillow picture enlarged to a size: by a network as often as it takes and then resampled, or by resampling alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import InvalidRequest
from ..images import GeneratedImage
from ..request.pictures import crop, has_alpha, plain_mode
from ..request.writers.forms import KEY
from .network import Upscaler
from .tiles import OVERLAP, TILE, tile_count, tiled

MOST_PASSES = 3
"""Times that a network runs on what it made, where it enlarges by less than is wanted (as in A1111)."""
FILTERS = {
    "Lanczos": Image.Resampling.LANCZOS,
    "Nearest": Image.Resampling.NEAREST,
    "Bicubic": Image.Resampling.BICUBIC,
    "Bilinear": Image.Resampling.BILINEAR,
}
"""Of `RESAMPLERS`."""
SPREAD = 2
"""Pixels that colour reaches into transparent parts in a pass, before a network sees them."""
T = TypeVar("T")
Enlarger = Upscaler | str
"""A network, or the name of a resampling filter."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """How large: `scale` times the picture, or to cover `size` (width, height), cut to it with `crop`."""

    scale: float = 2.0
    size: tuple[int, int] | None = None
    crop: bool = False

    def of(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size before anything is cut off."""
        scale = self.scale if self.size is None else max(self.size[0] / size[0], self.size[1] / size[1])
        width, height = (max(1, round(side * scale)) for side in size)
        return width, height


def enlarged_image(
    image: Image.Image, by: Enlarger, size: tuple[int, int], *, tile: int = TILE, overlap: int = OVERLAP
) -> Generator[float, None, Image.Image]:
    """The picture at `size` (width, height): yields the share that is done, 0 to 1, and returns RGB or RGBA.

    Transparent pictures keep their alpha, which a network enlarges too.
    """
    shown = plain_mode(image)
    if isinstance(by, str):
        return shown.resize(size, FILTERS[by])
    straight = torch.from_numpy(np.array(shown.convert("RGBA" if has_alpha(shown) else "RGB"))).float() / 255
    made = yield from enlarged_tensor(straight.permute(2, 0, 1)[None], by, size, tile=tile, overlap=overlap)
    pixels = (made[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    found = Image.fromarray(np.ascontiguousarray(pixels))
    return found if found.size == size else found.resize(size, Image.Resampling.LANCZOS)


def enlarged_tensor(
    straight: Tensor, by: Upscaler, size: tuple[int, int], *, tile: int = TILE, overlap: int = OVERLAP
) -> Generator[float, None, Tensor]:
    """A straight picture [1,3 or 4,H,W] in [0, 1] enlarged by the network until it covers `size`, or for
    `MOST_PASSES`; yields the share that is done."""
    colour = straight[:, :3].cpu()
    planes = [colour]
    if straight.shape[1] == 4:
        alpha = straight[:, 3:].cpu()
        opaque = bool((alpha == 1).all())
        planes = [colour] if opaque else [_spread(colour, alpha), alpha.expand(-1, 3, -1, -1)]
    sizes = _passes((straight.shape[-1], straight.shape[-2]), by.scale, size)
    total = len(planes) * sum(tile_count(each, tile) for each in sizes)
    done, finished = 0, []
    for plane in planes:
        for _ in sizes:
            steps = tiled(by, plane, by.scale, tile=tile, overlap=overlap)
            last = 0
            while True:
                try:
                    last, count = next(steps)
                except StopIteration as end:
                    plane, done = end.value, done + count
                    break
                yield (done + last) / total
        finished.append(plane)
    if straight.shape[1] == 3:
        return finished[0]
    alpha = finished[1].mean(1, keepdim=True) if len(finished) == 2 else torch.ones_like(finished[0][:, :1])
    return torch.cat([finished[0], alpha], dim=1)


def last_value(steps: Generator[float, None, T]) -> T:
    """What such a run returns, for callers that show no progress."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: T = end.value
            return made


def upscaled(
    image: Image.Image,
    by: Enlarger,
    target: Target,
    *,
    second: Enlarger | None = None,
    share: float = 0.0,
    tile: int = TILE,
) -> Generator[float, None, GeneratedImage]:
    """The picture enlarged, with its own text and how it was enlarged: yields the share that is done, 0 to 1.

    second, share   another upscaler, and how much of its picture is mixed in, 0 to 1 (A1111's visibility)
    """
    size, halves = target.of(image.size), 2 if second is not None and share > 0 else 1
    made = yield from _part(enlarged_image(image, by, size, tile=tile), 0, halves)
    if second is not None and share > 0:
        other = yield from _part(enlarged_image(image, second, size, tile=tile), 1, halves)
        made = Image.blend(made, other.convert(made.mode), share)
    if target.size is not None and target.crop and made.size != target.size:
        made = crop(made, *target.size)
    found = GeneratedImage.of(made)
    text = image.info.get(KEY)
    name = by if isinstance(by, str) else by.name
    how = f"Postprocess upscale to: {made.width}x{made.height}, Postprocess upscaler: {name}"
    found.info[KEY] = f"{text}, {how}" if isinstance(text, str) and text else how
    return found


def check_size(size: tuple[int, int], most_side: int, most_pixels: int) -> None:
    """InvalidRequest where an enlarged picture would be beyond these limits."""
    width, height = size
    if max(size) > most_side or width * height > most_pixels:
        raise InvalidRequest(
            f"the enlarged picture would have {width}x{height} pixels; expected at most {most_side} on a side and "
            f"{most_pixels} in all"
        )


def _part(steps: Generator[float, None, Image.Image], number: int, parts: int) -> Generator[float, None, Image.Image]:
    while True:
        try:
            yield (number + next(steps)) / parts
        except StopIteration as end:
            made: Image.Image = end.value
            return made


def _passes(size: tuple[int, int], scale: int, target: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes at which a network runs."""
    sizes = [size]
    while scale > 1 and len(sizes) < MOST_PASSES:
        width, height = sizes[-1][0] * scale, sizes[-1][1] * scale
        if width >= target[0] and height >= target[1]:
            break
        sizes.append((width, height))
    return sizes


def _spread(colour: Tensor, alpha: Tensor) -> Tensor:
    """Colour [1,3,H,W] that reaches into parts where alpha [1,1,H,W] is 0, whose own colour means nothing: a network
    would draw it into the edge."""
    known = (alpha > 0).float()
    colour = colour * known
    side = 2 * SPREAD + 1
    for _ in range(8):
        if bool(known.all()):
            break
        weight = F.avg_pool2d(known, side, 1, SPREAD)
        near = F.avg_pool2d(colour, side, 1, SPREAD) / weight.clamp(min=1e-6)
        colour = torch.where(known > 0, colour, torch.where(weight > 0, near, 0.0))
        known = torch.maximum(known, (weight > 0).float())
    return colour
