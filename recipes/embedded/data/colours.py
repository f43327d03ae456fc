"""The named colours: their English and Chinese names and their paint, and recolouring a picture from one to another.

Recolouring works in OKLab (Björn Ottosson, 2020), where equal steps look equal: pixels whose hue is near the object's
own colour take the new hue, chroma and lightness in proportion; a green leaf on a red apple stays green.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from .render import Picture
from .words import names, rows

TABLE = rows("colours.tsv")
COLOUR_NAMES = {name: chinese for name, chinese, _, _ in TABLE}
PAINT = {name: paint for name, _, paint, _ in TABLE if paint != "-"}
NEAR = {name: frozenset(names(near)) for name, _, _, near in TABLE}
"""For each colour, those too close to it to be worth a recoloured picture."""
TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
HUE_WINDOW = 0.75  # radians around the object's own hue that count as its colour
GREY_CHROMA = 0.035  # under this a pixel has no colour of its own
SHOWN_HUE = 0.4  # radians around a paint's hue that are called by its name
SHOWN_LIGHTNESS = 0.25  # how much lighter or darker than a paint is still called by its name
SHOWN_GREY = 0.15  # the same for black and grey, which lightness alone tells apart
LEAST_SHOWN = 0.2
"""Share of a picture's visible area that must be in a colour for a caption to name it."""


def oklab(colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB in [0, 1], shape [..., 3] -> OKLab."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ TO_LMS.T) @ TO_LAB.T


def from_oklab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab [..., 3] -> sRGB in [0, 1], clipped to the gamut."""
    linear = ((lab @ np.linalg.inv(TO_LAB).T) ** 3) @ np.linalg.inv(TO_LMS).T
    linear = linear.clip(0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def paint_lab(colour: str) -> NDArray[np.float64]:
    """OKLab of a named colour's paint."""
    text = PAINT[colour].lstrip("#")
    return oklab(np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)], dtype=np.float64) / 255.0)


def dominant(lab: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """(lightness, chroma, hue, share) of the main colour: the hue with most weighted chroma, and its share."""
    chroma, hue = np.hypot(lab[..., 1], lab[..., 2]), np.arctan2(lab[..., 2], lab[..., 1])
    mass = weight * chroma
    bins = np.floor((hue + np.pi) / (2 * np.pi) * 36).astype(int).clip(0, 35)
    histogram = np.bincount(bins.ravel(), mass.ravel(), minlength=36)
    smooth = histogram + np.roll(histogram, 1) + np.roll(histogram, -1)
    centre = (int(smooth.argmax()) + 0.5) / 36 * 2 * np.pi - np.pi
    near = mass * (np.abs(angle(hue - centre)) < HUE_WINDOW) * (chroma > GREY_CHROMA)
    total = max(float(near.sum()), 1e-9)
    mean_hue = centre + float((near * angle(hue - centre)).sum()) / total
    return (
        float((near * lab[..., 0]).sum()) / total,
        float((near * chroma).sum()) / total,
        mean_hue,
        total / max(mass.sum(), 1e-9),
    )


def angle(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wrap an angle to [-pi, pi)."""
    return (value + np.pi) % (2 * np.pi) - np.pi


def recolour(picture: Picture, colour: str) -> Picture:
    """The same object in another named colour. uint8 [S, S, 4] in and out; alpha is untouched."""
    lab = oklab(picture[..., :3].astype(np.float64) / 255.0)
    light, strength, hue, _ = dominant(lab, picture[..., 3].astype(np.float64) / 255.0)
    target = paint_lab(colour)
    target_strength, target_hue = float(np.hypot(target[1], target[2])), float(np.arctan2(target[2], target[1]))
    chroma, hues = np.hypot(lab[..., 1], lab[..., 2]), np.arctan2(lab[..., 2], lab[..., 1])
    distance = np.abs(angle(hues - hue))
    share = np.clip((HUE_WINDOW - distance) / 0.25 + 0.5, 0, 1) * np.clip(chroma / GREY_CHROMA - 0.5, 0, 1)
    new_chroma = chroma * target_strength / max(strength, 1e-6)
    new_hue = target_hue + 0.5 * angle(hues - hue)
    shift = (target[0] - light) * np.clip(chroma / max(strength, 1e-6), 0, 1) * 0.9
    moved = np.stack(
        [(lab[..., 0] + shift).clip(0.05, 0.99), new_chroma * np.cos(new_hue), new_chroma * np.sin(new_hue)], -1
    )
    mixed = lab + share[..., None] * (moved - lab)
    result = picture.copy()
    result[..., :3] = (from_oklab(mixed) * 255.0).round().astype(np.uint8)
    return result


def recolourable(picture: Picture, own: str, least: float = 0.6) -> bool:
    """Whether one hue makes up most of the picture's colour and it is the one the table says."""
    lab = oklab(picture[..., :3].astype(np.float64) / 255.0)
    _, strength, hue, share = dominant(lab, picture[..., 3].astype(np.float64) / 255.0)
    paint = paint_lab({"golden": "yellow"}.get(own, own))
    near = abs(float(angle(np.array(hue - np.arctan2(paint[2], paint[1]))))) < HUE_WINDOW
    return near and share >= least and strength > 2 * GREY_CHROMA


def coloured(picture: Picture) -> float:
    """Share of a picture's visible area that has a colour, 0 to 1: black, white and grey have none."""
    lab = oklab(picture[..., :3].astype(np.float64) / 255.0)
    alpha = picture[..., 3].astype(np.float64)
    chromatic = np.hypot(lab[..., 1], lab[..., 2]) > GREY_CHROMA
    return float((alpha * chromatic).sum() / max(alpha.sum(), 1.0))


def shown(picture: Picture, colour: str) -> float:
    """Share of a picture's visible area that is in a named colour, 0 to 1; tints and shades count, faint ones not."""
    lab, paint = oklab(picture[..., :3].astype(np.float64) / 255.0), paint_lab(colour)
    alpha = picture[..., 3].astype(np.float64)
    chroma, strength = np.hypot(lab[..., 1], lab[..., 2]), float(np.hypot(paint[1], paint[2]))
    lighter = np.abs(lab[..., 0] - paint[0])
    if strength < GREY_CHROMA:
        found = (chroma < GREY_CHROMA) & (lighter < SHOWN_GREY)
    else:
        off = angle(np.arctan2(lab[..., 2], lab[..., 1]) - np.arctan2(paint[2], paint[1]))
        found = (np.abs(off) < SHOWN_HUE) & (chroma > 0.5 * strength) & (lighter < SHOWN_LIGHTNESS)
    return float((alpha * found).sum() / max(alpha.sum(), 1.0))


def in_colours(picture: Picture, colours: Iterable[str]) -> Iterator[tuple[str, Picture]]:
    """The picture in each named colour, without those where it hardly shows: "a purple shoe" with a purple tongue."""
    for colour in colours:
        painted = recolour(picture, colour)
        if shown(painted, colour) >= LEAST_SHOWN:
            yield colour, painted
