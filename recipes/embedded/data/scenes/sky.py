"""Skies: gradient, sun, moon, stars, clouds, rainbow, aurora; and what falls in front of the scene."""

from __future__ import annotations

import math
import random
from itertools import pairwise

from .light import OVERCAST, Light
from .paint import CANVAS, Drawing, mix


def draw_sky(drawing: Drawing, light: Light, horizon: float) -> None:
    """The gradient, its last colour at the horizon."""
    drawing.box(0, 0, CANVAS, CANVAS, drawing.vertical(light.sky, 0, horizon))


def draw_stars(drawing: Drawing, source: random.Random, bottom: float, count: int = 90) -> None:
    """Stars of different brightness above `bottom`, a few of them with a cross of light."""
    for _ in range(count):
        x, y = source.uniform(0, CANVAS), source.uniform(0, bottom)
        drawing.circle(x, y, source.choice((0.6, 0.8, 1.0, 1.4)), "#ffffff", source.uniform(0.45, 1.0))
    for _ in range(source.randint(4, 7)):
        x, y, arm = source.uniform(8, CANVAS - 8), source.uniform(6, bottom * 0.85), source.uniform(3, 5)
        drawing.polygon(
            [(x, y - arm), (x + arm / 5, y - arm / 5), (x + arm, y), (x + arm / 5, y + arm / 5), (x, y + arm),
             (x - arm / 5, y + arm / 5), (x - arm, y), (x - arm / 5, y - arm / 5)], "#fffbe0", 0.95,
        )  # fmt: skip


def draw_sun(drawing: Drawing, light: Light, x: float, y: float, radius: float, warm: bool) -> None:
    """A sun with its glow: pale and low when `warm`, bright yellow with a thin halo else."""
    drawing.glow(x, y, radius * 5.0, "#ffb347" if warm else "#fff6c2", 0.75)
    drawing.circle(x, y, radius * 1.35, "#ffd98a" if warm else "#fff3b0", 0.45)
    drawing.circle(x, y, radius, light.sun)


def draw_moon(
    drawing: Drawing, light: Light, source: random.Random, x: float, y: float, radius: float, full: bool
) -> None:
    """A full moon with craters or a crescent."""
    drawing.glow(x, y, radius * 3.6, "#cfd8ff", 0.5)
    if full:
        drawing.circle(x, y, radius, light.sun)
        for dx, dy, size in ((-0.35, -0.2, 0.22), (0.3, 0.25, 0.28), (0.15, -0.5, 0.14), (-0.25, 0.5, 0.16)):
            drawing.circle(x + dx * radius, y + dy * radius, size * radius, "#dccf9f", 0.7)
        return
    side = source.choice((-1, 1))
    arc = f"M{x:.1f} {y - radius:.1f}A{radius:.1f} {radius:.1f} 0 1 {int(side > 0)} {x:.1f} {y + radius:.1f}"
    inner = radius * 1.25
    drawing.add(
        f'<path d="{arc}A{inner:.1f} {inner:.1f} 0 0 {int(side < 0)} {x:.1f} {y - radius:.1f}Z" fill="{light.sun}"/>'
    )


def draw_cloud(
    drawing: Drawing, source: random.Random, x: float, y: float, width: float, colour: str, opacity: float
) -> None:
    """One flat-bottomed cloud, `width` wide, its base at y."""
    puffs = [(-0.32, 0.17), (-0.12, 0.27), (0.12, 0.23), (0.32, 0.15)]
    shapes = f'<rect x="{x - width / 2:.1f}" y="{y - width * 0.16:.1f}" width="{width:.1f}" '
    shapes += f'height="{width * 0.17:.1f}" rx="{width * 0.085:.1f}"/>'
    for at, size in puffs:
        radius = width * size * source.uniform(0.85, 1.1)
        shapes += f'<circle cx="{x + at * width:.1f}" cy="{y - width * 0.1 - radius * 0.45:.1f}" r="{radius:.1f}"/>'
    name = f"c{len(drawing.definitions)}"
    drawing.definitions.append(
        f'<clipPath id="{name}"><rect x="-60" y="-60" width="400" height="{y + 61:.1f}"/></clipPath>'
    )
    drawing.add(f'<g clip-path="url(#{name})" fill="{colour}" opacity="{opacity:.2f}">{shapes}</g>')


def draw_clouds(drawing: Drawing, light: Light, source: random.Random, horizon: float, weather: str) -> None:
    """A few clouds for 'clouds', a heavy deck for rain, snow and storm, streaks else."""
    if weather in OVERCAST and weather != "fog":
        for row in range(2):
            x = source.uniform(-20, 10)
            while x < CANVAS + 30:
                width = source.uniform(80, 120)
                drawing_colour = mix(light.cloud, "#ffffff", 0.06 + 0.1 * row)
                draw_cloud(drawing, source, x, 26 + 22 * row + source.uniform(-4, 6), width, drawing_colour, 0.95)
                x += width * 0.55
        return
    if weather == "clouds":
        slots = source.sample([(0.15, 0.3), (0.5, 0.2), (0.83, 0.34), (0.32, 0.55), (0.72, 0.6)], source.randint(3, 5))
        for across, down in slots:
            width = source.uniform(52, 92)
            y = max(24.0, horizon * (down + source.uniform(-0.06, 0.06)))
            draw_cloud(drawing, source, across * CANVAS + source.uniform(-14, 14), y, width, light.cloud, 0.94)


def draw_streaks(drawing: Drawing, light: Light, source: random.Random, horizon: float) -> None:
    """Thin glowing cloud bands low in a dawn or sunset sky."""
    for _ in range(source.randint(3, 6)):
        x, y = source.uniform(20, CANVAS - 20), horizon * source.uniform(0.3, 0.9)
        width, thick = source.uniform(30, 80), source.uniform(1.6, 3.6)
        colour = mix(light.cloud, light.sky[-1][1], y / horizon * 0.8)
        drawing.ellipse(x, y, width, thick, colour, 0.6)
        drawing.ellipse(x + width * 0.3, y - thick * 1.5, width * 0.5, thick * 0.8, colour, 0.5)


def draw_rainbow(drawing: Drawing, source: random.Random, horizon: float) -> None:
    """A full arc in seven bands whose feet stand on the horizon."""
    x, radius, band = CANVAS / 2 + source.uniform(-20, 20), source.uniform(100, 118), 4.6
    colours = ("#e8403a", "#f58a2c", "#f9d83a", "#4fbf5b", "#3e8ef0", "#5a55cf", "#9b4fc4")
    for index, colour in enumerate(colours):
        r = radius - index * band
        drawing.add(
            f'<path d="M{x - r:.1f} {horizon + 12:.1f}'
            f'A{r:.1f} {r:.1f} 0 0 1 {x + r:.1f} {horizon + 12:.1f}" fill="none" '
            f'stroke="{colour}" stroke-width="{band + 0.4:.1f}" opacity="0.88"/>'
        )


def draw_aurora(drawing: Drawing, source: random.Random, horizon: float) -> None:
    """Curtains of green and violet light hanging in a night sky."""
    for colour, opacity in (("#7b4fe0", 0.10), ("#2fe6a8", 0.15), ("#5affb0", 0.13)):
        phase, top = source.uniform(0, 6.28), horizon * source.uniform(0.15, 0.35)
        name = drawing.vertical(((0.0, colour), (1.0, colour)))
        for step in range(64):
            x = step * 4.2
            y = top + 18 * math.sin(x / 46 + phase) + 8 * math.sin(x / 17 + 2 * phase)
            height = horizon * (0.34 + 0.12 * math.sin(x / 23 + phase))
            for piece in range(4):
                drawing.box(x, y - height * piece * 0.12, 4.6, height * (1 - 0.2 * piece), name, opacity)


def draw_lightning(drawing: Drawing, source: random.Random, horizon: float) -> None:
    """One or two forked bolts from the cloud deck to the horizon."""
    for x in source.sample((60.0, 110.0, 150.0, 200.0), source.randint(1, 2)):
        points, y = [(x, 46.0)], 46.0
        while y < horizon - 4:
            y += source.uniform(14, 24)
            points.append((points[-1][0] + source.uniform(-14, 14), min(y, horizon)))
        for width, colour, opacity in ((7.0, "#cfd6ff", 0.25), (2.6, "#fffbe0", 1.0)):
            for start, end in pairwise(points):
                drawing.line(start, end, colour, width, opacity)
        fork = points[len(points) // 2]
        drawing.line(fork, (fork[0] + source.choice((-22, 22)), fork[1] + 24), "#fffbe0", 1.6)


def draw_falling(drawing: Drawing, source: random.Random, weather: str) -> None:
    """What falls in front of everything: rain streaks, snow flakes, banks of fog."""
    if weather in ("rain", "storm"):
        slant = source.choice((-1, 1)) * source.uniform(3, 7)
        for _ in range(110):
            x, y, length = source.uniform(-10, CANVAS + 10), source.uniform(-10, CANVAS), source.uniform(9, 17)
            drawing.line((x, y), (x - slant * length / 17, y + length), "#dcecff", 1.3, source.uniform(0.4, 0.8))
    elif weather == "snow":
        for _ in range(120):
            x, y = source.uniform(0, CANVAS), source.uniform(0, CANVAS)
            drawing.circle(x, y, source.uniform(1.0, 2.8), "#ffffff", source.uniform(0.65, 1.0))
    elif weather == "fog":
        for _ in range(9):
            x, y = source.uniform(0, CANVAS), source.uniform(CANVAS * 0.35, CANVAS * 0.95)
            drawing.ellipse(x, y, source.uniform(70, 140), source.uniform(8, 18), "#eef2f6", source.uniform(0.25, 0.45))
