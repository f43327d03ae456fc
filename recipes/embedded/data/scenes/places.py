"""Inhabited and tended grounds: garden, park, farm, village, harbour, a street at night, a room."""

from __future__ import annotations

import math
import random
from itertools import pairwise

from .land import green
from .light import Light, lit
from .paint import CANVAS, Drawing, level_at, mix, rolling, vary
from .shapes import conifer, cottage, round_tree, tower_block
from .view import View
from .water import draw_glitter, draw_waves, sea_colours

FLOWERS = ("#ff5d6c", "#ffd84a", "#ffffff", "#b678f0", "#ff9ed2", "#ff8a3c")


def draw_garden(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """A lawn between flower beds, a hedge and a white fence at its end."""
    low = view.horizon
    drawing.land(rolling(source, low - 8, 6, 1.8), lit("#3f8f4e", light, 0.35))
    for index in range(14):
        x = index * 20 + source.uniform(-5, 5)
        drawing.circle(x, low + 4, source.uniform(13, 18), lit(vary("#3b8f48", source), light, 0.15))
    drawing.box(0, low + 8, CANVAS, CANVAS, lit(green(view), light))
    for x in range(-6, CANVAS, 17):
        board = [(x, low + 26), (x, low - 2), (x + 5, low - 9), (x + 10, low - 2), (x + 10, low + 26)]
        drawing.polygon(board, lit("#ffffff", light))
    for y in (low + 4, low + 17):
        drawing.box(0, y, CANVAS, 4, lit("#f1f1f1", light))
    for row, side in ((0, -1), (1, -1), (2, -1), (0, 1), (1, 1), (2, 1)):
        y = low + 36 + 26 * row
        reach = 74 - 12 * row
        x = -8 if side < 0 else CANVAS + 8 - reach
        drawing.ellipse(x + reach / 2, y + 7, reach / 2 + 10, 10 + 2 * row, lit("#6b4a32", light))
        petal = lit(source.choice(FLOWERS), light)
        for step in range(7):
            at, size = x + (step + 0.5) * reach / 7 + source.uniform(-3, 3), 3.6 + row
            drawing.line((at, y + 8), (at, y - 4), lit("#2f7d3b", light), 1.6)
            if view.weather == "snow":
                continue
            for turn in range(5):
                angle = turn * 2 * math.pi / 5
                drawing.circle(
                    at + size * 0.8 * math.cos(angle), y - 5 + size * 0.8 * math.sin(angle), size * 0.62, petal
                )
            drawing.circle(at, y - 5, size * 0.5, lit("#ffd84a", light))


def draw_park(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Lawns and broad trees, a winding path, lamps and a bench."""
    low = view.horizon
    drawing.land(rolling(source, low - 2, 5, 1.4), lit(mix(green(view), "#2f7d3b", 0.35), light, 0.35))
    for index in range(9):
        x = index * 31 + source.uniform(-8, 8)
        round_tree(drawing, light, source, x, low + 14, source.uniform(46, 66), 0.35)
    drawing.land(rolling(source, low + 12, 3, 0.9), lit(green(view), light))
    bend = source.uniform(-30, 30)
    path = (
        f"M{118 + bend * 0.3:.0f} {low + 12:.0f}C{70 + bend:.0f} {low + 45:.0f} {190 + bend:.0f} {low + 62:.0f} 60 260"
        f"L196 260C{240 + bend:.0f} {low + 60:.0f} {96 + bend:.0f} {low + 48:.0f} "
        f"{132 + bend * 0.3:.0f} {low + 12:.0f}Z"
    )
    drawing.add(f'<path d="{path}" fill="{lit("#e6d3a8", light)}"/>')
    for x, tall in ((source.uniform(20, 46), 78.0), (source.uniform(206, 236), 78.0)):
        lamp(drawing, light, view, x, low + 62, tall)
    if view.decorated:
        bench(drawing, light, source.choice((58.0, 196.0)), low + 76)
        round_tree(drawing, light, source, source.choice((8.0, 250.0)), 252, 150, 0.0)


def lamp(drawing: Drawing, light: Light, view: View, x: float, base: float, height: float) -> None:
    """A street lamp, lit after dark."""
    iron = lit("#3a4250", light)
    drawing.box(x - 1.6, base - height, 3.2, height, iron)
    drawing.ellipse(x, base, 7, 2.5, iron)
    if view.time in ("night", "sunset"):
        drawing.glow(x, base - height - 5, 30, "#ffe6a0", 0.8)
    glass = "#fff2b8" if view.time in ("night", "sunset") else lit("#eef3f6", light)
    drawing.circle(x, base - height - 4, 6.5, glass)
    drawing.polygon([(x - 7, base - height - 8), (x + 7, base - height - 8), (x, base - height - 15)], iron)


def bench(drawing: Drawing, light: Light, x: float, base: float) -> None:
    """A wooden bench seen from the front."""
    wood, iron = lit("#a8703f", light), lit("#3a4250", light)
    for side in (-20, 17):
        drawing.box(x + side, base - 14, 3, 16, iron)
    for y in (26, 20, 13):
        drawing.box(x - 24, base - y, 48, 4.2, wood)


def draw_farm(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """A red barn with a silo behind furrowed fields."""
    low = view.horizon
    drawing.land(rolling(source, low - 4, 8, 1.2), lit(mix(green(view), "#2f7d3b", 0.2), light, 0.4))
    drawing.land(rolling(source, low + 10, 3, 0.8), lit(mix(green(view), "#d8c25a", 0.25), light, 0.1))
    x, base = source.choice((70.0, 92.0, 168.0, 186.0)), low + 28
    drawing.box(x + 34, base - 74, 20, 74, lit("#b9c2cc", light))
    drawing.ellipse(x + 44, base - 74, 10, 9, lit("#8e99a8", light))
    barn(drawing, light, x, base)
    furrow, crop = lit("#8a5f3a", light), lit("#5fae46" if view.weather != "snow" else "#e8eef6", light)
    drawing.box(0, base + 4, CANVAS, CANVAS, lit("#a9794a" if view.weather != "snow" else "#dfe8f2", light))
    middle = CANVAS / 2 + source.uniform(-20, 20)
    for index in range(-9, 10):
        end = CANVAS / 2 + index * 46
        start = middle + index * 11
        drawing.polygon([(start - 1, base + 4), (start + 1, base + 4), (end + 8, 264), (end - 8, 264)], furrow, 0.75)
        for step in range(1, 7):
            share = (step / 6.5) ** 1.6
            at, y = start + (end - start) * share + 6 + 14 * share, base + 4 + (264 - base) * share
            drawing.circle(at, y, 1.6 + 5.4 * share, crop)
    for at in range(0, CANVAS, 22):
        drawing.box(at, base - 3, 2.4, 12, lit("#d9c7a5", light))
    drawing.box(0, base - 1, CANVAS, 2.2, lit("#d9c7a5", light))


def barn(drawing: Drawing, light: Light, x: float, base: float) -> None:
    """The barn: a gambrel roof, a door with a white cross."""
    wall, trim = lit("#c23b32", light), lit("#ffffff", light)
    drawing.polygon([(x - 34, base), (x - 34, base - 42), (x - 22, base - 60), (x, base - 70), (x + 22, base - 60),
                     (x + 34, base - 42), (x + 34, base)], wall)  # fmt: skip
    roof = [(x - 38, base - 40), (x - 24, base - 62), (x, base - 73), (x + 24, base - 62), (x + 38, base - 40)]
    for start, end in pairwise(roof):
        drawing.line(start, end, lit("#6d4a46", light), 5)
    drawing.box(x - 13, base - 30, 26, 30, trim)
    drawing.box(x - 11, base - 28, 22, 28, mix(wall, "#000000", 0.2))
    drawing.line((x - 10, base - 27), (x + 10, base - 1), trim, 2)
    drawing.line((x + 10, base - 27), (x - 10, base - 1), trim, 2)
    drawing.box(x - 6, base - 54, 12, 12, trim)
    drawing.box(x - 4, base - 52, 8, 8, lit("#4a3030", light))


def draw_village(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Cottages with coloured roofs along a lane, a church among them, hills behind."""
    low = view.horizon
    drawing.land(rolling(source, low - 8, 12, 1.3), lit(mix(green(view), "#2f7d3b", 0.3), light, 0.5))
    drawing.land(rolling(source, low + 10, 4, 0.9), lit(green(view), light, 0.15))
    dark = view.time in ("night", "sunset")
    for row, (base, size) in enumerate(((low + 22, 30.0), (low + 48, 44.0))):
        x, church = source.uniform(-8, 12), source.randint(1, 3)
        while x < CANVAS:
            if row == 0 and church == 0:
                steeple(drawing, light, x + size * 0.5, base, size, dark)
            else:
                cottage(drawing, light, source, x + size * 0.5, base, size * source.uniform(0.9, 1.1), dark)
            church -= 1
            x += size * source.uniform(1.25, 1.6)
            if source.random() < 0.5:
                round_tree(drawing, light, source, x - size * 0.22, base, size * 0.8, 0.1)
    drawing.land(rolling(source, low + 50, 2, 0.7), lit(mix(green(view), "#3aa04a", 0.2), light))
    drawing.add(
        f'<path d="M-4 {low + 70:.0f}Q128 {low + 52:.0f} 260 {low + 74:.0f}L260 {low + 96:.0f}'
        f'Q128 {low + 74:.0f} -4 {low + 94:.0f}Z" fill="{lit("#d9c39a", light)}"/>'
    )


def steeple(drawing: Drawing, light: Light, x: float, base: float, size: float, dark: bool) -> None:
    """A small church with a pointed tower."""
    drawing.box(x - size * 0.2, base - size * 1.5, size * 0.4, size * 1.5, lit("#f3ead8", light))
    drawing.polygon([(x - size * 0.26, base - size * 1.5), (x + size * 0.26, base - size * 1.5),
                     (x, base - size * 2.3)], lit("#5a6f8c", light))  # fmt: skip
    drawing.box(x - 3, base - size * 1.3, 6, 9, "#ffdf7e" if dark else lit("#6d7f96", light))


def draw_harbour(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Calm water with boats, a quay of coloured houses and a lighthouse on the mole."""
    low, dark = view.horizon, view.time in ("night", "sunset")
    far, near = sea_colours(light, view)
    drawing.land(rolling(source, low - 22, 10, 1.1), lit("#6f9f8a", light, 0.45))
    x = source.uniform(-14, 0)
    while x < CANVAS - 60:
        width, tall = source.uniform(22, 30), source.uniform(34, 56)
        paint = lit(source.choice(("#e8805a", "#f0c25a", "#7fb2d9", "#e79ab0", "#8fc08a", "#f3ead8")), light, 0.08)
        tower_block(drawing, source, x, low + 4, width, tall, paint, "#ffdf7e" if dark else "#5f7894", 0.8)
        drawing.polygon(
            [(x - 2, low + 5 - tall), (x + width + 2, low + 5 - tall), (x + width / 2, low - 9 - tall)],
            lit("#b5523f", light, 0.08),
        )
        x += width
    drawing.box(0, low + 2, CANVAS, 8, lit("#9a938a", light))
    drawing.box(0, low + 9, CANVAS, CANVAS, drawing.vertical(((0, far), (1, near)), low))
    draw_waves(drawing, light, source, low + 12, CANVAS, mix(far, "#ffffff", 0.4))
    draw_glitter(drawing, light, source, view, CANVAS)
    lighthouse(drawing, light, 226, low + 12, 76, dark)
    for at in source.sample((44.0, 96.0, 150.0), 2) if view.decorated else ():
        sailing_boat(drawing, light, source, at, low + source.uniform(34, 66), source.uniform(34, 48))


def lighthouse(drawing: Drawing, light: Light, x: float, base: float, height: float, dark: bool) -> None:
    """A white tower with red bands on rocks, its lamp lit after dark."""
    drawing.ellipse(x, base, 32, 8, lit("#6f6a66", light))
    for step in range(5):
        low, high = base - 4 - height * step / 5, base - 4 - height * (step + 1) / 5
        wide, narrow = 10 - step * 0.9, 10 - (step + 1) * 0.9
        paint = lit("#d63a34" if step % 2 else "#ffffff", light)
        drawing.polygon([(x - wide, low), (x + wide, low), (x + narrow, high), (x - narrow, high)], paint)
    top = base - 4 - height
    if dark:
        drawing.glow(x, top - 6, 40, "#fff0a8", 0.9)
    drawing.box(x - 5, top - 11, 10, 11, "#fff0a8" if dark else lit("#cfe4f0", light))
    drawing.polygon([(x - 8, top - 11), (x + 8, top - 11), (x, top - 20)], lit("#8c2f2c", light))


def sailing_boat(drawing: Drawing, light: Light, source: random.Random, x: float, base: float, size: float) -> None:
    """A moored sailing boat."""
    hull = lit(source.choice(("#ffffff", "#2f6fe4", "#c23b32", "#26505f")), light)
    drawing.ellipse(x, base + 1, size * 0.55, 3, "#ffffff", 0.35)
    drawing.polygon([(x - size * 0.5, base - size * 0.2), (x + size * 0.5, base - size * 0.2),
                     (x + size * 0.34, base), (x - size * 0.36, base)], hull)  # fmt: skip
    drawing.box(x - 0.9, base - size * 1.1, 1.8, size * 0.95, lit("#6d5138", light))
    drawing.polygon([(x + 2, base - size * 1.05), (x + 2, base - size * 0.28), (x + size * 0.42, base - size * 0.28)],
                    lit("#fbf3e0", light))  # fmt: skip


def draw_room(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """A living room: wall with a window and a picture, wooden floor, a rug, and a lamp that is on at night."""
    wall = source.choice(("#f4d9b8", "#cfe3dd", "#d9d3ee", "#f6c9c0", "#cfdcf0", "#e6e0c4"))
    dark = view.time == "night"
    tone = (lambda colour: mix(colour, "#1b2048", 0.3)) if dark else (lambda colour: colour)
    drawing.box(0, 0, CANVAS, CANVAS, tone(wall))
    floor = view.horizon + 34
    drawing.box(0, floor, CANVAS, CANVAS, tone("#c08a56"))
    for index in range(-6, 8):
        drawing.line((128 + index * 26, floor), (128 + index * 62, 262), tone("#a87444"), 1.4)
    drawing.box(0, floor - 7, CANVAS, 7, tone("#ffffff"))
    x = source.choice((64.0, 128.0, 186.0))
    sky = drawing.vertical(light.sky, 26, floor - 66)
    drawing.box(x - 41, 24, 82, 84, tone("#ffffff"))
    drawing.box(x - 36, 29, 72, 74, sky)
    drawing.box(x - 36, 86, 72, 17, lit("#6bbf4a", light, 0.2))
    drawing.box(x - 1.8, 29, 3.6, 74, tone("#ffffff"))
    drawing.box(x - 36, 64, 72, 3.6, tone("#ffffff"))
    drawing.box(x - 46, 106, 92, 7, tone("#f2ece2"))
    curtain = tone(source.choice(("#e8655a", "#5a9fd4", "#5fae8a", "#e0a63c", "#9b74c9")))
    for side in (-1, 1):
        drawing.polygon(
            [(x + side * 24, 16), (x + side * 56, 16), (x + side * 52, 122), (x + side * 38, 122)], curtain, 0.95
        )
    drawing.box(x - 62, 12, 124, 5, tone("#7a5232"))
    drawing.ellipse(128, 226, 92, 20, tone(source.choice(("#d9574f", "#4f86c6", "#e8c25a", "#6aa88f"))))
    drawing.ellipse(128, 226, 76, 14.5, tone("#f7ead2"), 0.55)
    side = 232.0 if x < 150 else 24.0
    drawing.box(side - 1.5, 96, 3, floor + 8 - 96, tone("#5a4636"))
    drawing.ellipse(side, floor + 8, 14, 4, tone("#5a4636"))
    if dark:
        drawing.glow(side, 92, 74, "#ffe09a", 0.9)
    drawing.polygon(
        [(side - 11, 70), (side + 11, 70), (side + 20, 98), (side - 20, 98)], "#fff0b8" if dark else "#f7e7c0"
    )
    if view.decorated:
        sofa(drawing, source, 128 + source.uniform(-12, 12), floor + 30, tone)


def sofa(drawing: Drawing, source: random.Random, x: float, base: float, tone: object) -> None:
    """A sofa with two cushions."""
    assert callable(tone)
    cloth = tone(source.choice(("#4f7fc0", "#c9614f", "#5d9a78", "#d9a23c", "#8a6cb0")))
    for left, top, width, height, shade in (
        (-58, 56, 116, 44, 0.0), (-66, 40, 18, 40, 0.12), (48, 40, 18, 40, 0.12), (-50, 28, 100, 24, 0.08),
    ):  # fmt: skip
        drawing.add(
            f'<rect x="{x + left:.1f}" y="{base - top:.1f}" width="{width}" height="{height}" rx="8" '
            f'fill="{mix(cloth, "#000000", shade)}"/>'
        )
    for side in (-30, 10):
        drawing.add(
            f'<rect x="{x + side:.1f}" y="{base - 48:.1f}" width="22" height="20" rx="5" fill="{tone("#f6e3c0")}"/>'
        )
    for side in (-56, 50):
        drawing.box(x + side, base, 6, 7, tone("#5a4636"))


def draw_street(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """A shopping street: shop fronts with awnings, lamps, a pavement and the road."""
    base, dark = view.horizon + 62, view.time in ("night", "sunset")
    x = -6.0
    while x < CANVAS:
        width, tall = source.uniform(54, 70), source.uniform(104, 150)
        paint = lit(source.choice(("#c9755d", "#6d8fa8", "#d1a35b", "#8a9f78", "#a77fa8", "#b8574f")), light)
        tower_block(drawing, source, x, base, width, tall, paint, "#ffdf7e" if dark else "#dff1fb", 0.75)
        drawing.box(x, base - 42, width, 44, mix(paint, "#000000", 0.15))
        drawing.box(x + 6, base - 30, width * 0.55, 26, "#ffe9a8" if dark else lit("#cfe6f2", light))
        drawing.box(x + width * 0.72, base - 32, width * 0.2, 34, lit("#5a3f2f", light))
        stripe = lit(source.choice(("#d9453d", "#2f8f6a", "#2f6fb4", "#e0902f")), light)
        for step in range(6):
            left = x + 2 + step * (width - 4) / 6
            drawing.box(left, base - 44, (width - 4) / 6, 12, stripe if step % 2 else lit("#ffffff", light))
        x += width
    drawing.box(0, base, CANVAS, 18, lit("#b4b0aa", light))
    drawing.box(0, base + 16, CANVAS, 3, lit("#8d8a86", light))
    drawing.box(0, base + 19, CANVAS, CANVAS, lit("#4e5462", light))
    for at in range(4, CANVAS, 44):
        drawing.box(at, 246, 24, 3.4, lit("#ffffff", light), 0.8)
    for at in (source.uniform(14, 40), source.uniform(212, 240)):
        lamp(drawing, light, view, at, base + 12, 84)


def draw_winter_village(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Cottages under snow between firs, their windows warm."""
    low = view.horizon
    ridge = rolling(source, low - 6, 12, 1.2)
    drawing.land(ridge, lit("#d5e3f4", light, 0.4))
    for index in range(16):
        at = index * 17 + source.uniform(-4, 4)
        conifer(
            drawing,
            at,
            level_at(ridge, at) + 8,
            source.uniform(22, 38),
            lit("#2b6f56", light, 0.2),
            lit("#ffffff", light),
        )
    drawing.land(rolling(source, low + 22, 4, 0.9), lit("#d3e2f5", light))
    x = source.uniform(0, 24)
    while x < CANVAS - 20:
        size = source.uniform(40, 52)
        cottage(drawing, light, source, x + size / 2, low + 50, size, True, snow=True)
        x += size * source.uniform(1.3, 1.7)
    drawing.land(rolling(source, low + 52, 4, 0.8), lit("#edf4fd", light))
