"""Brushes of the scene composer: colours, gradients and silhouettes as SVG text.

The canvas is 256 x 256 units, y down. Every function is pure: randomness comes in as a `random.Random`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

CANVAS = 256
Point = tuple[float, float]


@dataclass
class Drawing:
    """An SVG document under construction: definitions (gradients) and shapes in painting order."""

    definitions: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)

    def add(self, shape: str) -> None:
        """Paint one more shape on top."""
        self.shapes.append(shape)

    def vertical(self, stops: Sequence[tuple[float, str]], top: float = 0.0, bottom: float = CANVAS) -> str:
        """A top-to-bottom gradient; returns the value for `fill`."""
        name = f"g{len(self.definitions)}"
        inner = "".join(f'<stop offset="{at:.3f}" stop-color="{colour}"/>' for at, colour in stops)
        self.definitions.append(
            f'<linearGradient id="{name}" gradientUnits="userSpaceOnUse" '
            f'x1="0" y1="{top:.1f}" x2="0" y2="{bottom:.1f}">'
            f"{inner}</linearGradient>"
        )
        return f"url(#{name})"

    def glow(self, x: float, y: float, radius: float, colour: str, strength: float) -> None:
        """A soft round light."""
        name = f"g{len(self.definitions)}"
        self.definitions.append(
            f'<radialGradient id="{name}" gradientUnits="userSpaceOnUse" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">'
            f'<stop offset="0" stop-color="{colour}" stop-opacity="{strength:.2f}"/>'
            f'<stop offset="0.45" stop-color="{colour}" stop-opacity="{strength * 0.35:.2f}"/>'
            f'<stop offset="1" stop-color="{colour}" stop-opacity="0"/></radialGradient>'
        )
        self.circle(x, y, radius, f"url(#{name})")

    def circle(self, x: float, y: float, radius: float, fill: str, opacity: float = 1.0) -> None:
        """A disc."""
        self.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.2f}" fill="{fill}" opacity="{opacity:.2f}"/>')

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: str, opacity: float = 1.0) -> None:
        """An ellipse with level axes."""
        self.add(
            f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{rx:.1f}" ry="{ry:.2f}" fill="{fill}" opacity="{opacity:.2f}"/>'
        )

    def box(self, x: float, y: float, width: float, height: float, fill: str, opacity: float = 1.0) -> None:
        """A rectangle."""
        self.add(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}" '
            f'opacity="{opacity:.2f}"/>'
        )

    def polygon(self, points: Sequence[Point], fill: str, opacity: float = 1.0) -> None:
        """A filled polygon with straight sides."""
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.add(f'<polygon points="{text}" fill="{fill}" opacity="{opacity:.2f}"/>')

    def line(self, start: Point, end: Point, colour: str, width: float, opacity: float = 1.0) -> None:
        """A line with round ends."""
        self.add(
            f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" stroke="{colour}" '
            f'stroke-width="{width:.2f}" stroke-linecap="round" opacity="{opacity:.2f}"/>'
        )

    def land(self, ridge: Sequence[Point], fill: str, opacity: float = 1.0) -> None:
        """Everything under a smooth ridge, down to the bottom edge."""
        path = smooth(ridge) + f"L{CANVAS + 8} {CANVAS + 8}L-8 {CANVAS + 8}Z"
        self.add(f'<path d="{path}" fill="{fill}" opacity="{opacity:.2f}"/>')

    def svg(self) -> str:
        """The whole document."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {CANVAS} {CANVAS}" '
            f'width="{CANVAS}" height="{CANVAS}">'
            f"<defs>{''.join(self.definitions)}</defs>{''.join(self.shapes)}</svg>"
        )


def channels(colour: str) -> tuple[int, int, int]:
    """'#rrggbb' -> three integers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def mix(first: str, second: str, share: float) -> str:
    """A colour between two: `share` 0 gives the first, 1 the second."""
    pairs = zip(channels(first), channels(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def vary(colour: str, source: random.Random, amount: float = 0.08) -> str:
    """The same colour, a little lighter or darker."""
    step = source.uniform(-amount, amount)
    return mix(colour, "#ffffff" if step > 0 else "#000000", abs(step))


def smooth(points: Sequence[Point]) -> str:
    """A path through points with Catmull-Rom tangents turned into cubic Bézier pieces."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for i in range(len(points) - 1):
        before, start, end = points[max(i - 1, 0)], points[i], points[i + 1]
        after = points[min(i + 2, len(points) - 1)]
        first = (start[0] + (end[0] - before[0]) / 6, start[1] + (end[1] - before[1]) / 6)
        second = (end[0] - (after[0] - start[0]) / 6, end[1] - (after[1] - start[1]) / 6)
        path += f"C{first[0]:.1f} {first[1]:.1f} {second[0]:.1f} {second[1]:.1f} {end[0]:.1f} {end[1]:.1f}"
    return path


def rolling(source: random.Random, height: float, swing: float, waves: float = 1.5) -> list[Point]:
    """A soft ridge about `height`, swinging by `swing` units, `waves` humps across the canvas."""
    phases = [source.uniform(0, 2 * math.pi) for _ in range(3)]
    points = []
    for x in range(-8, CANVAS + 17, 16):
        turn = 2 * math.pi * waves * x / CANVAS
        value = (
            math.sin(turn + phases[0])
            + 0.4 * math.sin(2.1 * turn + phases[1])
            + 0.15 * math.sin(4.7 * turn + phases[2])
        )
        points.append((float(x), height + swing * value / 1.55))
    return points


def level_at(ridge: Sequence[Point], x: float) -> float:
    """Height of a ridge at `x`, by linear interpolation."""
    for (left, low), (right, high) in pairwise(ridge):
        if left <= x <= right:
            return low + (high - low) * (x - left) / (right - left)
    return ridge[-1][1]
