"""Pictures made into what a ControlNet or T2I-Adapter reads, where that needs no network: edges, inverse, threshold.

Source: Canny 1986, "A computational approach to edge detection" (thinning across the edge, two thresholds); without its
smoothing and in colour, since the edges that ControlNets were trained on are found so. Maps that need a network (depth,
poses, soft edges) are made elsewhere and passed through with "none".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ...errors import unknown_choice
from ...request.control import PREPROCESSORS, Control
from ...request.pictures import RESIZES, plain_mode

THRESHOLDS = {"canny": (100.0, 200.0), "threshold": (127.0, None)}
"""Thresholds A and B where none are given, on the scale of A1111's extension (0 to 255)."""

Floats = NDArray[np.float64]


def preprocessed(image: Image.Image, name: str, low: float | None = None, high: float | None = None) -> Image.Image:
    """The picture as the preprocessor `name` makes it, in RGB; `low` and `high` are its thresholds, 0 to 255.

    InvalidRequest names the nearest preprocessor where there is none of that name.
    """
    shown = plain_mode(image)
    if shown.mode == "RGBA":
        shown = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    shown = shown.convert("RGB")
    first, second = THRESHOLDS.get(name, (None, None))
    low, high = first if low is None else low, second if high is None else high
    if name == "none":
        return shown
    if name == "invert":
        return ImageOps.invert(shown)
    if name == "threshold":
        return shown.convert("L").point(lambda value: 255 * (value > (low or 0))).convert("RGB")
    if name == "canny":
        return Image.fromarray(canny(shown, low or 0.0, high or 0.0)).convert("RGB")
    raise unknown_choice("preprocessor", name, PREPROCESSORS)


def canny(image: Image.Image, low: float, high: float) -> NDArray[np.uint8]:
    """Edges [H,W], 255 on an edge and 0 elsewhere.

    A gradient is that of Sobel's filters in the channel where it is largest; its size is the sum of both directions'
    absolute values. Where it is the largest across the edge and above `high`, there is an edge; where it is above
    `low` only, there is one if it leads to such a place.
    """
    channels = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.float64), -1, 0)
    gradients = np.array([_sobel(channel) for channel in channels])  # [3, 2, H, W]
    largest = np.abs(gradients).sum(axis=1).argmax(axis=0)[None, None]
    across, down = np.take_along_axis(gradients, largest, axis=0)[0]
    size = np.abs(across) + np.abs(down)
    thin = np.where(_largest_across(size, across, down), size, 0.0)
    return (255 * _connected(thin > high, thin > low)).astype(np.uint8)


def _sobel(grey: Floats) -> tuple[Floats, Floats]:
    """Derivatives to the right and downwards; the picture's border is repeated outside it."""
    g = np.pad(grey, 1, mode="edge")
    rows = g[:-2] + 2 * g[1:-1] + g[2:]
    columns = g[:, :-2] + 2 * g[:, 1:-1] + g[:, 2:]
    return rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]


def _largest_across(size: Floats, across: Floats, down: Floats) -> NDArray[np.bool_]:
    """Whether a place's gradient is at least that of its two neighbours in the gradient's direction, of eight."""
    padded = np.pad(size, 1)
    height, width = size.shape
    sector = np.round(np.arctan2(down, across) / (np.pi / 4)).astype(int) % 4
    found = np.zeros(size.shape, dtype=bool)
    for index, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        ahead = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        behind = padded[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        found |= (sector == index) & (size > behind) & (size >= ahead)
    return found


def _connected(seeds: NDArray[np.bool_], allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """All places of `allowed` that can be reached from `seeds` over neighbours, of which a place has eight."""
    reached = seeds & allowed
    while True:
        padded = np.pad(reached, 1)
        height, width = reached.shape
        grown = np.zeros_like(reached)
        for dy in range(3):
            for dx in range(3):
                grown |= padded[dy : dy + height, dx : dx + width]
        grown &= allowed
        if (grown == reached).all():
            return reached
        reached = grown


def control_picture(control: Control, width: int, height: int) -> Image.Image:
    """A control's picture as its network reads it, RGB at this size."""
    assert control.image is not None
    shown = preprocessed(control.image, "none")
    if shown.size != (width, height):
        shown = RESIZES[control.resize](shown, width, height)
    return preprocessed(shown, control.preprocessor, control.threshold_a, control.threshold_b)
