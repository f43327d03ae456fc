"""Watery grounds: ocean, beach, lake, island, and the world under water."""

from __future__ import annotations

import math
import random

from .light import Light, lit
from .paint import CANVAS, Drawing, level_at, mix, rolling
from .shapes import conifer, palm, peaks
from .view import View


def sea_colours(light: Light, view: View) -> tuple[str, str]:
    """(far, near) colours of open water: the sky's reflection at the horizon, deep blue at our feet."""
    far = mix(light.sky[-1][1], lit("#2f86c9", light), 0.25 if view.time in ("sunset", "dawn") else 0.7)
    return far, lit({"noon": "#0f5fae", "night": "#14306e", "sunset": "#4a3f9a"}.get(view.time, "#2a56a0"), light)


def draw_glitter(drawing: Drawing, light: Light, source: random.Random, view: View, bottom: float) -> None:
    """The sun's or moon's path on the water: bright dashes that widen towards us."""
    if view.lamp is None:
        return
    x, low = view.lamp[0], view.horizon
    colour = {"sunset": "#ffe08a", "dawn": "#fff0c0", "night": "#dfe6ff"}.get(view.time, "#ffffff")
    y, row = low + 1.5, 0
    while y < bottom:
        share = (y - low) / (CANVAS - low)
        spread = 7 + 30 * share
        for _ in range(2 + row // 4):
            width = source.uniform(0.35, 1.0) * (5 + 16 * share)
            offset = source.gauss(0, spread * 0.42)
            fade = 0.95 - 0.45 * share if view.time != "noon" else 0.55 - 0.3 * share
            drawing.ellipse(x + offset, y, width, 0.7 + 1.5 * share, colour, fade)
        y += 3.0 + 4.0 * share
        row += 1


def draw_waves(drawing: Drawing, light: Light, source: random.Random, top: float, bottom: float, colour: str) -> None:
    """Thin lighter crests, longer and further apart towards us."""
    y = top + 4
    while y < bottom - 2:
        share = (y - top) / max(bottom - top, 1)
        for _ in range(5):
            x, width = source.uniform(0, CANVAS), source.uniform(7, 20) * (0.5 + share)
            drawing.ellipse(x, y + source.uniform(-2, 2), width, 0.6 + 0.7 * share, colour, 0.3)
        y += 6 + 9 * share


def draw_sea(drawing: Drawing, light: Light, source: random.Random, view: View, bottom: float = CANVAS) -> None:
    """Open water from the horizon to `bottom` with waves and glitter."""
    far, near = sea_colours(light, view)
    drawing.box(
        0,
        view.horizon,
        CANVAS,
        CANVAS - view.horizon,
        drawing.vertical(((0, far), (0.3, mix(far, near, 0.55)), (1, near)), view.horizon),
    )
    drawing.box(0, view.horizon - 0.6, CANVAS, 1.4, mix(far, "#ffffff", 0.35), 0.7)
    draw_waves(drawing, light, source, view.horizon, bottom, mix(far, "#ffffff", 0.4))
    draw_glitter(drawing, light, source, view, bottom)


def draw_ocean(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Nothing but water, now and then with a far coast."""
    if source.random() < 0.25:
        ridge = [(x, view.horizon - max(0.0, 9 * math.sin((x - 150) / 36))) for x in range(150, 268, 8)]
        side = source.random() < 0.5
        points = [(CANVAS - x if side else x, y) for x, y in ridge]
        drawing.polygon(
            [*points, (points[-1][0], view.horizon + 1), (points[0][0], view.horizon + 1)], lit("#3f6f86", light, 0.5)
        )
    draw_sea(drawing, light, source, view)


def draw_beach(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Sea, a foaming shore line and sand; sometimes a palm."""
    shore = CANVAS * source.uniform(0.74, 0.8)
    draw_sea(drawing, light, source, view, shore)
    ridge = rolling(source, shore, source.uniform(3, 6), 0.8)
    sand = lit("#f3d9a0", light)
    drawing.land([(x, y - 7) for x, y in ridge], mix(sea_colours(light, view)[0], "#ffffff", 0.45), 0.55)
    drawing.land([(x, y - 3) for x, y in ridge], lit("#ffffff", light), 0.9)
    drawing.land(ridge, lit("#d9b67a", light))
    drawing.land([(x, y + 5) for x, y in ridge], sand)
    for _ in range(26):
        drawing.circle(
            source.uniform(0, CANVAS), source.uniform(shore + 14, CANVAS), 0.9, mix(sand, "#7a5a34", 0.5), 0.6
        )
    if view.decorated and source.random() < 0.45:
        side = source.choice((22.0, 234.0))
        palm(drawing, light, source, side, shore + 26, source.uniform(105, 135), -1 if side > 128 else 1)


def draw_lake(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Mountains and woods around still water that mirrors them."""
    ridge = peaks(source, view.horizon - 2, source.uniform(46, 70), 5)
    far = lit("#6f83a8", light, 0.35)
    drawing.polygon([*ridge, (CANVAS + 8, view.horizon + 1), (-8, view.horizon + 1)], far)
    far_water, near = sea_colours(light, view)
    drawing.box(
        0, view.horizon, CANVAS, CANVAS - view.horizon, drawing.vertical(((0, far_water), (1, near)), view.horizon)
    )
    mirrored = [(x, 2 * view.horizon - y * 1.0) for x, y in ridge]
    drawing.polygon([*mirrored, (CANVAS + 8, view.horizon), (-8, view.horizon)], mix(far, near, 0.45), 0.6)
    woods = lit("#2f6b4a", light, 0.12)
    x = -6.0
    while x < CANVAS + 8:
        tall = source.uniform(12, 22)
        conifer(drawing, x, view.horizon + 2, tall, woods)
        drawing.polygon(
            [(x - tall * 0.3, view.horizon), (x + tall * 0.3, view.horizon), (x, view.horizon + tall)], woods, 0.35
        )
        x += source.uniform(6, 11)
    draw_waves(drawing, light, source, view.horizon + 14, CANVAS, mix(far_water, "#ffffff", 0.4))
    draw_glitter(drawing, light, source, view, CANVAS)
    bank = rolling(source, 246, 4, 0.7)
    drawing.land(bank, lit("#4f8f46", light))


def draw_island(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """A small sandy island with palms in the sea."""
    draw_sea(drawing, light, source, view)
    x, y = CANVAS / 2 + source.uniform(-30, 30), view.horizon + source.uniform(42, 54)
    drawing.ellipse(x, y + 9, 88, 13, lit("#8fe0e0", light), 0.45)
    drawing.ellipse(x, y + 6, 74, 10, lit("#ffffff", light), 0.7)
    drawing.add(
        f'<path d="M{x - 70} {y + 6}Q{x} {y - 34} {x + 70} {y + 6}'
        f'Q{x} {y + 16} {x - 70} {y + 6}Z" fill="{lit("#f3d9a0", light)}"/>'
    )
    for offset, lean in ((-14.0, -1), (10.0, 1), (26.0, 1))[: source.randint(2, 3)]:
        palm(drawing, light, source, x + offset, y - 8, source.uniform(72, 98), lean)


def draw_underwater(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Blue depth with rays from above, bubbles, sand, weeds and coral."""
    deep = view.time == "night"
    stops = ((0.0, "#123a7d"), (1.0, "#061639")) if deep else ((0.0, "#67d6f5"), (0.45, "#1f8fd6"), (1.0, "#0b3f8f"))
    drawing.box(0, 0, CANVAS, CANVAS, drawing.vertical(stops))
    for _ in range(6):
        x, width = source.uniform(0, CANVAS), source.uniform(12, 30)
        drawing.polygon(
            [(x, -4), (x + width, -4), (x + width * 2.2 - 40, 220), (x - 60, 220)], "#ffffff", 0.05 if deep else 0.12
        )
    far = rolling(source, 214, 8, 1.2)
    drawing.land(far, "#0a2e66" if deep else "#2f79b5", 0.8)
    sand = rolling(source, 228, 5, 0.9)
    drawing.land(sand, "#2a4a76" if deep else "#e5cf98")
    for _ in range(source.randint(5, 9)):
        x = source.choice((source.uniform(4, 70), source.uniform(186, 252)))
        y, tall, colour = (
            level_at(sand, x) + 6,
            source.uniform(34, 78),
            source.choice(("#1f9e6a", "#2dbd7a", "#147a5c")),
        )
        bend = source.uniform(-12, 12)
        drawing.add(
            f'<path d="M{x:.0f} {y:.0f}Q{x + bend:.0f} {y - tall * 0.35:.0f} '
            f'{x:.0f} {y - tall * 0.6:.0f}T{x + bend * 0.6:.0f} {y - tall:.0f}" '
            f'fill="none" stroke="{mix(colour, "#0a2e66", 0.55 if deep else 0)}" '
            'stroke-width="5" stroke-linecap="round"/>'
        )
    for _ in range(source.randint(2, 4)):
        x = source.uniform(10, CANVAS - 10)
        colour = mix(source.choice(("#ff6f7d", "#ff9a4d", "#c86be0")), "#0a2e66", 0.5 if deep else 0)
        for turn in (-0.7, -0.25, 0.25, 0.7):
            drawing.line(
                (x, level_at(sand, x) + 6),
                (x + 20 * math.sin(turn), level_at(sand, x) + 4 - 22 * math.cos(turn)),
                colour,
                5.5,
            )
    for _ in range(source.randint(10, 18)):
        x, y, radius = source.uniform(0, CANVAS), source.uniform(10, 210), source.uniform(1.5, 5)
        drawing.add(
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{radius:.1f}" fill="#ffffff" fill-opacity="0.18" '
            'stroke="#ffffff" stroke-opacity="0.7"/>'
        )
