"""Dry grounds: hills, mountains, forest, desert, field, snowfield, city, road; and outer space."""

from __future__ import annotations

import math
import random

from .light import Light, lit
from .paint import CANVAS, Drawing, level_at, mix, rolling, vary
from .shapes import conifer, peaks, round_tree, snowy_peak, tower_block
from .view import View


def green(view: View) -> str:
    """Grass of the moment; white under falling snow."""
    return "#eef4fb" if view.weather == "snow" else "#6bbf4a"


def draw_hills(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Three or four rolling layers, hazier towards the horizon, with small trees on the middle ones."""
    base = green(view)
    for index, (height, distance) in enumerate(((4, 0.75), (24, 0.45), (50, 0.2), (80, 0.0))):
        ridge = rolling(source, view.horizon + height, 15 - 2 * index, source.uniform(0.9, 1.7))
        drawing.land(ridge, lit(vary(mix(base, "#2f7d3b", 0.18 * index), source, 0.05), light, distance))
        if index in (1, 2) and view.decorated:
            for _ in range(source.randint(2, 5)):
                x = source.uniform(8, CANVAS - 8)
                round_tree(drawing, light, source, x, level_at(ridge, x) + 3, source.uniform(14, 20) * index, distance)


def draw_mountains(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Snow-capped peaks behind a dark wood and a meadow."""
    base = view.horizon + 26
    ridge = peaks(source, base, source.uniform(70, 88), 6)
    drawing.polygon([*ridge, (CANVAS + 8, base + 9), (-8, base + 9)], lit("#7f93b5", light, 0.55))
    for x in sorted(source.sample((30, 78, 128, 178, 226), 3), key=lambda at: abs(at - 128), reverse=True):
        tall = source.uniform(88, 128)
        snowy_peak(drawing, light, source, x, base + 8, tall * source.uniform(1.15, 1.4), tall, "#6a7690", 0.12)
    woods = rolling(source, base + 8, 5, 1.2)
    drawing.land(woods, lit("#2f6a48", light, 0.1))
    for index in range(26):
        x = index * 10.4 + source.uniform(-3, 3)
        conifer(drawing, x, level_at(woods, x) + 4, source.uniform(14, 24), lit(vary("#2a6042", source), light, 0.08))
    drawing.land(rolling(source, base + 24, 5, 0.9), lit(green(view), light))
    drawing.land(rolling(source, base + 46, 6, 0.8), lit(mix(green(view), "#2f7d3b", 0.3), light))


def draw_forest(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Rows of firs and broad-leaved trees, row before row, with a clearing in front."""
    snow = lit("#ffffff", light) if view.weather == "snow" else None
    mixed = source.random() < 0.4
    for height, tall, distance in ((0, 46, 0.6), (18, 66, 0.35), (38, 92, 0.12)):
        base = view.horizon + 22 + height
        drawing.land(rolling(source, base, 3, 1.0), lit(mix(green(view), "#24573a", 0.55), light, distance))
        x = -8.0
        while x < CANVAS + 10:
            size = tall * source.uniform(0.75, 1.15)
            if mixed and source.random() < 0.4 and not snow:
                round_tree(drawing, light, source, x, base + 6, size * 0.85, distance)
            else:
                conifer(drawing, x, base + 6, size, lit(vary("#2b7048", source, 0.1), light, distance), snow)
            x += size * source.uniform(0.3, 0.5)
    drawing.land(rolling(source, view.horizon + 72, 4, 0.8), lit(mix(green(view), "#2f7d3b", 0.25), light))
    if view.decorated:
        for x in (source.uniform(-6, 34), source.uniform(222, 262)):
            conifer(drawing, x, 250, source.uniform(120, 165), lit("#215c3c", light), snow)


def draw_desert(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Dunes with a sunlit and a shaded side, and a few cacti."""
    for height, distance in ((4, 0.6), (24, 0.3), (48, 0.1), (78, 0.0)):
        ridge = rolling(source, view.horizon + height, 13, source.uniform(0.8, 1.4))
        sand = vary("#eebf6d", source, 0.05)
        drawing.land(ridge, lit(sand, light, distance))
        shaded = [(x, y + 7 + 6 * math.sin(x / 31 + height)) for x, y in ridge]
        drawing.land(shaded, lit(mix(sand, "#b5713a", 0.28), light, distance))
        if height in (24, 48) and view.decorated and source.random() < 0.8:
            x = source.uniform(16, CANVAS - 16)
            draw_cactus(drawing, light, x, level_at(ridge, x) + 6, height * 0.9 + 10, distance)


def draw_cactus(drawing: Drawing, light: Light, x: float, base: float, height: float, distance: float) -> None:
    """A saguaro with two arms."""
    colour, thick = lit("#3f8f4f", light, distance), height * 0.16
    drawing.line((x, base), (x, base - height), colour, thick)
    for side, low, high in ((-1, 0.4, 0.75), (1, 0.52, 0.85)):
        elbow = (x + side * height * 0.24, base - low * height)
        drawing.line((x, base - low * height), elbow, colour, thick * 0.75)
        drawing.line(elbow, (elbow[0], base - high * height), colour, thick * 0.75)


def draw_field(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """A flat meadow full of flowers under a wide sky."""
    ridge = rolling(source, view.horizon, 5, 1.3)
    drawing.land(ridge, lit(mix(green(view), "#2f8a4a", 0.35), light, 0.4))
    drawing.land(rolling(source, view.horizon + 12, 3, 1.0), lit(green(view), light, 0.12))
    drawing.land(rolling(source, view.horizon + 46, 4, 0.8), lit(mix(green(view), "#3aa04a", 0.35), light))
    flowers = source.sample(("#ff5d6c", "#ffd84a", "#ffffff", "#b678f0", "#ff9ed2"), 3)
    for _ in range(130):
        y = view.horizon + 16 + (CANVAS - view.horizon - 16) * source.random() ** 0.8
        size = 0.8 + 3.4 * (y - view.horizon) / (CANVAS - view.horizon)
        x, petal = source.uniform(0, CANVAS), lit(source.choice(flowers), light)
        if view.weather == "snow":
            continue
        drawing.line((x, y), (x, y + size * 2.2), lit("#2f7d3b", light), size * 0.35)
        drawing.circle(x, y, size, petal)
        drawing.circle(x, y, size * 0.4, lit("#f7b733", light))


def draw_snowfield(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """White slopes with snowy firs."""
    snow = "#f3f8ff"
    for height, distance, tall in ((2, 0.6, 22), (26, 0.3, 40), (56, 0.0, 64)):
        ridge = rolling(source, view.horizon + height, 9, source.uniform(0.9, 1.4))
        drawing.land(ridge, lit(mix(snow, "#a9c4ea", 0.12 + 0.1 * distance), light, distance * 0.6))
        if tall < 60 or view.decorated:
            for _ in range(source.randint(3, 6)):
                x = source.choice((source.uniform(4, 90), source.uniform(166, 252)))
                conifer(
                    drawing,
                    x,
                    level_at(ridge, x) + 4,
                    tall * source.uniform(0.8, 1.2),
                    lit("#2f6b57", light, distance),
                    lit("#ffffff", light),
                )
    drawing.land(rolling(source, view.horizon + 84, 6, 0.8), lit(snow, light))


def draw_city(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Two rows of towers with windows that glow after dark, and a street in front."""
    dark = view.time in ("night", "sunset")
    window, glow = ("#ffdf7e", 0.62) if dark else ("#dff1fb", 0.9)
    base = view.horizon + 48
    for tall, distance, colours in (
        (100, 0.5, ("#8fa3c4", "#9fb0cc")),
        (74, 0.08, ("#5b74a8", "#c9755d", "#6d8fa8", "#8a6fa8", "#d19a5b")),
    ):
        x = -10.0
        while x < CANVAS:
            width = source.uniform(24, 40)
            tone = lit(vary(source.choice(colours), source, 0.06), light, distance)
            tower_block(
                drawing,
                source,
                x,
                base,
                width,
                tall * source.uniform(0.6, 1.3),
                tone,
                mix(window, light.haze, distance * 0.6),
                glow,
            )
            x += width + source.uniform(0, 5)
    drawing.box(0, base, CANVAS, CANVAS - base, lit("#9aa3ad", light))
    drawing.box(0, base + 14, CANVAS, CANVAS - base - 14, lit("#555c6b", light))
    for x in range(8, CANVAS, 40):
        drawing.box(x, base + (CANVAS - base) * 0.55, 22, 3.2, lit("#ffffff", light), 0.85)


def draw_road(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """A straight road to the vanishing point through grass, hills at its end."""
    drawing.land(rolling(source, view.horizon - 6, 10, 1.4), lit("#6f9fb0", light, 0.55))
    drawing.box(
        0,
        view.horizon,
        CANVAS,
        CANVAS - view.horizon,
        drawing.vertical(
            ((0, lit(green(view), light, 0.35)), (1, lit(mix(green(view), "#2f7d3b", 0.3), light))), view.horizon
        ),
    )
    x, low = CANVAS / 2 + source.uniform(-16, 16), view.horizon
    drawing.polygon(
        [(x - 3, low), (x + 3, low), (CANVAS * 0.86, CANVAS), (CANVAS * 0.14, CANVAS)], lit("#5d6470", light)
    )
    for near, far in ((0.02, 0.06), (0.1, 0.17), (0.25, 0.37), (0.5, 0.68), (0.84, 1.0)):
        points = []
        for share, side in ((near, -1), (near, 1), (far, 1), (far, -1)):
            centre = x + (CANVAS / 2 - x) * share
            points.append((centre + side * (0.3 + 3.4 * share), low + (CANVAS - low) * share))
        drawing.polygon(points, lit("#ffe48a", light))
    for share in (0.12, 0.24, 0.42) if view.decorated else ():
        for side in (-1, 1):
            at = x + side * (22 + 190 * share)
            round_tree(drawing, light, source, at, low + (CANVAS - low) * share, 26 + 120 * share, 0.5 - share)


def draw_space(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Deep space: nebulae, stars, and often a planet."""
    drawing.box(0, 0, CANVAS, CANVAS, drawing.vertical(((0, "#0a0720"), (0.5, "#151040"), (1, "#0a0720"))))
    for _ in range(4):
        colour = source.choice(("#7a3fd1", "#2f6fe4", "#d13f8f", "#1fa6a0"))
        drawing.glow(source.uniform(0, CANVAS), source.uniform(0, CANVAS), source.uniform(60, 120), colour, 0.5)
    for _ in range(120):
        drawing.circle(
            source.uniform(0, CANVAS),
            source.uniform(0, CANVAS),
            source.choice((0.6, 0.9, 1.3)),
            "#ffffff",
            source.uniform(0.4, 1),
        )
    if view.decorated:
        draw_planet(drawing, source, source.uniform(70, 186), source.uniform(80, 176), source.uniform(34, 58))
        if source.random() < 0.5:
            draw_planet(
                drawing, source, source.choice((34.0, 222.0)), source.choice((36.0, 218.0)), source.uniform(12, 20)
            )


def draw_planet(drawing: Drawing, source: random.Random, x: float, y: float, radius: float) -> None:
    """A banded planet with a shaded edge, ringed half of the time."""
    colour = source.choice(("#e0784a", "#4a9fe0", "#d9b15a", "#8f6be0", "#4fc08f", "#e05a7a"))
    ringed = source.random() < 0.5
    ring = f'<ellipse cx="{x:.0f}" cy="{y:.0f}" rx="{radius * 1.75:.0f}" ry="{radius * 0.45:.0f}" '
    ring += f'fill="none" stroke="{mix(colour, "#ffffff", 0.55)}" stroke-width="{radius * 0.16:.1f}"'
    if ringed:
        drawing.add(ring + f' transform="rotate(-18 {x:.0f} {y:.0f})"/>')
    name = f"p{len(drawing.definitions)}"
    drawing.definitions.append(f'<clipPath id="{name}"><circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/></clipPath>')
    drawing.add(f'<g clip-path="url(#{name})">')
    drawing.circle(x, y, radius, colour)
    for down, thick, tone in ((-0.55, 0.18, 0.2), (-0.1, 0.24, -0.15), (0.4, 0.16, 0.15)):
        drawing.ellipse(
            x,
            y + down * radius,
            radius * 1.1,
            thick * radius,
            mix(colour, "#ffffff" if tone > 0 else "#000000", abs(tone)),
        )
    drawing.circle(x + radius * 0.5, y + radius * 0.35, radius * 1.25, "#05031a", 0.22)
    drawing.add("</g>")
    if ringed:
        name = f"p{len(drawing.definitions)}"
        drawing.definitions.append(
            f'<clipPath id="{name}"><rect x="0" y="{y:.1f}" width="256" height="256"/></clipPath>'
        )
        drawing.add(f'<g transform="rotate(-18 {x:.0f} {y:.0f})"><g clip-path="url(#{name})">{ring}/></g></g>')
