"""Recurring silhouettes: mountains, conifers, round trees, palms, buildings."""

from __future__ import annotations

import math
import random

from .light import Light, lit
from .paint import CANVAS, Drawing, Point, mix


def peaks(source: random.Random, base: float, height: float, count: int) -> list[Point]:
    """A jagged skyline from left to right edge: `count` summits up to `height` above `base`."""
    points: list[Point] = [(-8.0, base - height * source.uniform(0.1, 0.4))]
    step = CANVAS / count
    for index in range(count):
        middle = (index + 0.5) * step + source.uniform(-0.2, 0.2) * step
        top = base - height * source.uniform(0.62, 1.0)
        points += [(middle - step * 0.24, top + height * source.uniform(0.18, 0.32)), (middle, top)]
        points += [(middle + step * 0.2, top + height * source.uniform(0.16, 0.3))]
        points.append(((index + 1) * step, base - height * source.uniform(0.12, 0.3)))
    points.append((CANVAS + 8.0, base - height * 0.3))
    return points


def snowy_peak(
    drawing: Drawing,
    light: Light,
    source: random.Random,
    x: float,
    base: float,
    width: float,
    height: float,
    colour: str,
    distance: float,
) -> None:
    """One big mountain: a lit and a shaded side and a zigzag snow cap."""
    top = base - height
    drawing.polygon([(x - width / 2, base), (x, top), (x + width / 2, base)], lit(colour, light, distance))
    drawing.polygon(
        [(x, top), (x + width / 2, base), (x + width * 0.06, base)], lit(mix(colour, "#1b2340", 0.3), light, distance)
    )
    cap, half = height * source.uniform(0.3, 0.4), width / 2
    reach = half * cap / height
    snow = [(x, top), (x + reach, top + cap), (x + reach * 0.5, top + cap * 0.72), (x + reach * 0.1, top + cap * 1.05),
            (x - reach * 0.35, top + cap * 0.7), (x - reach * 0.65, top + cap * 1.08),
            (x - reach, top + cap)]  # fmt: skip
    drawing.polygon(snow, lit("#ffffff", light, distance * 0.5))
    drawing.polygon(
        [(x, top), (x + reach, top + cap), (x + reach * 0.5, top + cap * 0.72), (x + reach * 0.1, top + cap)],
        lit("#c6d4ea", light, distance * 0.5),
    )


def conifer(drawing: Drawing, x: float, base: float, height: float, colour: str, snow: str | None = None) -> None:
    """A fir of three tiers; `snow` whitens their upper sides."""
    drawing.box(x - height * 0.04, base - height * 0.12, height * 0.08, height * 0.14, mix(colour, "#3a2413", 0.6))
    for low, high, wide in ((0.1, 0.55, 0.3), (0.35, 0.8, 0.23), (0.6, 1.0, 0.16)):
        left, right, top = x - wide * height, x + wide * height, base - high * height
        drawing.polygon([(left, base - low * height), (right, base - low * height), (x, top)], colour)
        if snow:
            drawing.polygon([(x - wide * height * 0.62, base - (low + (high - low) * 0.38) * height), (x, top),
                             (x + wide * height * 0.3, base - (low + (high - low) * 0.7) * height),
                             (x, base - (low + (high - low) * 0.5) * height)], snow, 0.95)  # fmt: skip


def round_tree(
    drawing: Drawing, light: Light, source: random.Random, x: float, base: float, height: float, distance: float
) -> None:
    """A broad-leaved tree: trunk and a crown of three discs with a lit side."""
    leaf = lit(source.choice(("#3f9b46", "#57ad4a", "#2f8550")), light, distance)
    drawing.box(x - height * 0.045, base - height * 0.45, height * 0.09, height * 0.47, lit("#7a5232", light, distance))
    for dx, dy, size in ((-0.17, 0.52, 0.2), (0.17, 0.54, 0.2), (0.0, 0.74, 0.25)):
        drawing.circle(x + dx * height, base - dy * height, size * height, leaf)
    drawing.circle(x - 0.08 * height, base - 0.78 * height, 0.12 * height, mix(leaf, "#ffffff", 0.14))


def palm(
    drawing: Drawing, light: Light, source: random.Random, x: float, base: float, height: float, lean: int
) -> None:
    """A bent palm with seven fronds."""
    top_x, top_y = x + lean * height * 0.22, base - height
    drawing.add(
        f'<path d="M{x - 3.5:.1f} {base:.1f}Q{x + lean * 2:.1f} {base - height * 0.6:.1f} '
        f"{top_x - 1.6:.1f} {top_y:.1f}L{top_x + 1.6:.1f} {top_y:.1f}"
        f'Q{x + lean * 2 + 6:.1f} {base - height * 0.6:.1f} {x + 3.5:.1f} {base:.1f}Z" fill="{lit("#8a5f3a", light)}"/>'
    )
    reach = height * 0.36
    for index in range(7):
        turn = math.pi * (1.08 - index * 0.193)
        end_x, end_y = (
            top_x + reach * math.cos(turn),
            top_y - reach * 0.55 * math.sin(turn) + reach * 0.35 * abs(math.cos(turn)),
        )
        rise, middle, high = reach * 0.45, (top_x + end_x) / 2, min(top_y, end_y)
        leaf = lit(("#2f8f4a", "#3fae57")[index % 2], light)
        drawing.add(
            f'<path d="M{top_x:.1f} {top_y:.1f}Q{middle:.1f} {high - rise:.1f} {end_x:.1f} {end_y:.1f}'
            f'Q{middle:.1f} {high - rise * 0.35:.1f} {top_x:.1f} {top_y:.1f}Z" fill="{leaf}"/>'
        )


def tower_block(
    drawing: Drawing,
    source: random.Random,
    x: float,
    base: float,
    width: float,
    height: float,
    colour: str,
    window: str,
    glow: float,
) -> None:
    """A building with a grid of windows; `glow` is the share of lit ones."""
    drawing.box(x, base - height, width, height + 2, colour)
    if source.random() < 0.3:
        drawing.box(x + width / 2 - 0.8, base - height - 12, 1.6, 12, colour)
    size, gap = 4.2, 7.6
    for row in range(int((height - 6) // gap)):
        for column in range(int((width - 4) // gap)):
            if source.random() < glow:
                drawing.box(x + 4 + column * gap, base - height + 5 + row * gap, size, size, window, 0.92)


def cottage(
    drawing: Drawing,
    light: Light,
    source: random.Random,
    x: float,
    base: float,
    size: float,
    dark: bool,
    snow: bool = False,
) -> None:
    """A small house seen from the front: walls, pitched roof, door, two windows, a chimney; lit after dark."""
    walls = ("#c9694f", "#b9854f", "#6f8fb4", "#d49a4a") if snow else ("#f6ead2", "#f2d6b0", "#dfe7ee", "#efc9a6")
    wall = lit(source.choice(walls), light)
    roof = "#f8fbff" if snow else source.choice(("#b5473a", "#8a4f3a", "#4f6f8c", "#6b7a52"))
    tall = size * 0.55
    drawing.box(x + size * 0.2, base - size * 1.02, size * 0.13, size * 0.3, lit("#8a5a48", light))
    drawing.box(x - size * 0.46, base - tall, size * 0.92, tall + 1, wall)
    drawing.polygon(
        [(x - size * 0.58, base - tall), (x + size * 0.58, base - tall), (x + size * 0.34, base - size),
         (x - size * 0.34, base - size)], lit(roof, light),
    )  # fmt: skip
    drawing.box(x - size * 0.09, base - size * 0.32, size * 0.18, size * 0.33, lit("#6d4630", light))
    pane = "#ffdf7e" if dark else lit("#8fb6d0", light)
    for side in (-0.3, 0.3):
        drawing.box(x + side * size - size * 0.1, base - size * 0.4, size * 0.2, size * 0.19, lit("#ffffff", light))
        drawing.box(x + side * size - size * 0.075, base - size * 0.375, size * 0.15, size * 0.14, pane)
