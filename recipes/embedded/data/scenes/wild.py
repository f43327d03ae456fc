"""Wild grounds: river, waterfall, volcano, jungle, canyon, cave, arctic ice."""

from __future__ import annotations

import math
import random

from .land import green
from .light import Light, lit
from .paint import CANVAS, Drawing, level_at, mix, rolling, vary
from .shapes import conifer, palm, peaks, round_tree, snowy_peak
from .view import View
from .water import draw_glitter, draw_waves, sea_colours


def draw_river(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """A river that winds through meadows towards us, woods on both sides."""
    low = view.horizon
    drawing.land(rolling(source, low - 12, 12, 1.2), lit("#5f8f7a", light, 0.5))
    meadow = rolling(source, low + 4, 3, 0.9)
    drawing.land(meadow, lit(green(view), light, 0.1))
    for index in range(15):
        x = index * 18.5 + source.uniform(-5, 5)
        conifer(drawing, x, level_at(meadow, x) + 4, source.uniform(20, 34), lit(vary("#2f6f4a", source), light, 0.2))
    far, near = sea_colours(light, view)
    water = drawing.vertical(((0, far), (1, near)), low)
    swing = source.choice((-1, 1)) * source.uniform(34, 50)
    middle = 128 - swing * 0.3
    bank = (
        f"M{middle - 4:.0f} {low + 5:.0f}C{middle + swing:.0f} {low + 26:.0f} {middle - 1.5 * swing - 30:.0f} "
        f"{low + 48:.0f} {40 + swing * 0.3:.0f} 262L{226 + swing * 0.3:.0f} 262C{middle - swing * 1.2 + 48:.0f} "
        f"{low + 56:.0f} {middle + swing + 22:.0f} {low + 28:.0f} {middle + 5:.0f} {low + 5:.0f}Z"
    )
    drawing.add(f'<path d="{bank}" fill="{water}" stroke="{lit("#cdb98a", light)}" stroke-width="4"/>')
    for _ in range(22):
        share = source.uniform(0.15, 1.0)
        y = low + 6 + (252 - low) * share
        x = middle + (133 - middle) * share + source.uniform(-1, 1) * 56 * share * share
        drawing.ellipse(x, y, 4 + 10 * share, 0.6 + share, "#ffffff", 0.35)
    for side in (source.uniform(6, 30), source.uniform(226, 250)) if view.decorated else ():
        round_tree(drawing, light, source, side, 236, source.uniform(92, 118), 0.0)


def draw_waterfall(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """A broad fall over a cliff into a pool, spray at its foot, green on the rocks."""
    low = view.horizon
    top, foot = low - 36, low + 52
    x, half = 128 + source.uniform(-24, 24), source.uniform(24, 34)
    rock = "#7c7a80"
    drawing.land(rolling(source, top - 16, 10, 1.4), lit("#3f7f56", light, 0.4))
    ridge = rolling(source, top, 6, 1.6)
    drawing.land(ridge, lit(rock, light, 0.1))
    for index in range(26):
        at = index * 10.4 + source.uniform(-3, 3)
        if abs(at - x) > half + 6:
            shade = vary(rock, source, 0.18)
            high = level_at(ridge, at) + source.uniform(4, 30)
            drawing.polygon(
                [(at - 7, high), (at + 6, high - 3), (at + 8, foot), (at - 8, foot)], lit(shade, light, 0.05)
            )
    for index in range(30):
        at = index * 9 + source.uniform(-3, 3)
        if abs(at - x) > half:
            drawing.circle(at, level_at(ridge, at) + 1, source.uniform(5, 10), lit(vary("#4a9a52", source), light, 0.1))
    far, near = sea_colours(light, view)
    fall = mix(lit("#bfe6fb", light), "#ffffff", 0.35 if view.time != "night" else 0.05)
    drawing.polygon([(x - half, level_at(ridge, x - half)), (x + half, level_at(ridge, x + half)),
                     (x + half * 1.15, foot + 4), (x - half * 1.15, foot + 4)], fall)  # fmt: skip
    for _ in range(26):
        at, start = x + source.uniform(-0.95, 0.95) * half, source.uniform(top + 4, foot - 30)
        tone = source.choice(("#ffffff", mix(fall, near, 0.35)))
        drawing.line(
            (at, start), (at + (at - x) * 0.1, start + source.uniform(16, 46)), tone, source.uniform(1.2, 2.6), 0.7
        )
    drawing.box(0, foot, CANVAS, CANVAS, drawing.vertical(((0, mix(near, "#8fe0e0", 0.35)), (1, near)), foot))
    draw_waves(drawing, light, source, foot + 8, CANVAS, mix(far, "#ffffff", 0.5))
    for _ in range(22):
        at = x + source.gauss(0, half * 0.75)
        drawing.circle(at, foot + source.uniform(-8, 8), source.uniform(4, 9), "#ffffff", 0.5)
    for at in (source.uniform(-6, 26), source.uniform(40, 66), source.uniform(196, 222), source.uniform(232, 262)):
        drawing.ellipse(
            at, foot + source.uniform(2, 16), source.uniform(14, 24), 10, lit(vary("#6d6b70", source), light)
        )
    drawing.land(rolling(source, 240, 4, 0.7), lit(mix(green(view), "#2f7d3b", 0.25), light))


def draw_volcano(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """A smoking volcano with glowing lava running down, dark ground before it."""
    low, x = view.horizon, 128 + source.uniform(-26, 26)
    base, tall = low + 34, source.uniform(104, 122)
    top = base - tall
    drawing.polygon([*peaks(source, low + 22, 34, 6), (264, base), (-8, base)], lit("#6b6f84", light, 0.5))
    for index in range(9):
        drift = index * source.choice((6.0, 7.5))
        grey = mix("#6d6a70", "#b9b4b2", index / 9)
        drawing.circle(
            x + drift * 0.9 + source.uniform(-6, 6), top - 4 - index * 8, 9 + index * 2.2, lit(grey, light), 0.88
        )
    drawing.glow(x, top, 54, "#ff8a2c", 0.85)
    for _ in range(14):
        angle, reach = source.uniform(-2.5, -0.64), source.uniform(16, 40)
        drawing.circle(x + reach * math.cos(angle), top + reach * math.sin(angle), source.uniform(1.2, 2.8), "#ffb13d")
    wide, waist = tall * source.uniform(0.86, 1.0), base - tall * 0.42
    slope = f"L{x + 15:.0f} {top:.0f}Q{x + 30:.0f} {waist:.0f} {x + wide:.0f} {base:.0f}"
    left = f"M{x - wide:.0f} {base:.0f}Q{x - 30:.0f} {waist:.0f} {x - 15:.0f} {top:.0f}"
    drawing.add(f'<path d="{left}{slope}Z" fill="{lit("#5b4a4c", light)}"/>')
    drawing.add(
        f'<path d="M{x + 2:.0f} {top:.0f}{slope}L{x + wide * 0.3:.0f} {base:.0f}Z" fill="#1a1216" opacity="0.28"/>'
    )
    drawing.ellipse(x, top + 1, 15.5, 4.5, "#ff7a1f")
    for start, end in ((-7, -26), (3, 10), (9, 44)):
        sway = source.uniform(-8, 8)
        for width, colour in ((8.5, "#e8451f"), (4.0, "#ffb03a")):
            drawing.add(
                f'<path d="M{x + start:.0f} {top:.0f}Q{x + start + sway:.0f} {top + tall * 0.4:.0f} {x + end:.0f} '
                f'{top + tall * source.uniform(0.72, 0.78):.0f}" fill="none" stroke="{colour}" stroke-width="{width}" '
                'stroke-linecap="round"/>'
            )
    drawing.land(rolling(source, base - 7, 3, 1.0), lit("#4d6b48", light, 0.05))
    front = rolling(source, base + 22, 5, 0.8)
    drawing.land(front, lit("#5f8a4e" if view.weather != "snow" else "#e3eaf2", light))
    for _ in range(7):
        at = source.uniform(0, CANVAS)
        drawing.ellipse(
            at, level_at(front, at) + source.uniform(4, 26), source.uniform(5, 12), 4, lit("#57504f", light)
        )


def draw_jungle(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Dense green: tall trunks with vines, palms, and broad leaves in front."""
    low = view.horizon
    drawing.box(0, low - 40, CANVAS, CANVAS, lit("#3f8f62", light, 0.45))
    for height, distance in ((-34, 0.5), (-6, 0.3)):
        for index in range(15):
            drawing.circle(index * 19 + source.uniform(-8, 8), low + height, source.uniform(20, 34),
                           lit(vary("#2f8a4f", source, 0.12), light, distance))  # fmt: skip
    drawing.box(0, low + 8, CANVAS, CANVAS, lit("#256b3f", light, 0.18))
    for x in sorted(source.sample((14.0, 48.0, 84.0, 170.0, 206.0, 242.0), 4)):
        wide = source.uniform(5, 9)
        drawing.polygon([(x - wide, low + 76), (x - wide * 0.6, -6), (x + wide * 0.6, -6), (x + wide, low + 76)],
                        lit(vary("#6a4a30", source), light, 0.1))  # fmt: skip
        for side in (-1, 1):
            drawing.add(
                f'<path d="M{x:.0f} {source.uniform(8, 40):.0f}q{side * 16} {source.uniform(40, 70):.0f} {side * 34} '
                f'{source.uniform(-14, 6):.0f}" fill="none" stroke="{lit("#3f9a4a", light)}" stroke-width="2.2"/>'
            )
    for index in range(12):
        drawing.circle(index * 24 + source.uniform(-8, 8), source.uniform(-12, 10), source.uniform(20, 32),
                       lit(vary("#1f7a42", source, 0.1), light))  # fmt: skip
    for x in (source.uniform(26, 66), source.uniform(188, 230)):
        palm(drawing, light, source, x, low + 78, source.uniform(88, 118), source.choice((-1, 1)))
    drawing.land(rolling(source, low + 70, 5, 1.0), lit("#3a8f45", light))
    for x in (*range(-4, 84, 22), *range(178, 264, 22)):
        big_leaf(drawing, light, source, x + source.uniform(-6, 6), 258, source.uniform(36, 62))


def big_leaf(drawing: Drawing, light: Light, source: random.Random, x: float, base: float, size: float) -> None:
    """Three broad pointed leaves from one root."""
    for turn in (-0.75, 0.0, 0.75):
        angle = turn + source.uniform(-0.15, 0.15)
        tip = (x + size * math.sin(angle), base - size * math.cos(angle))
        across = (math.cos(angle) * size * 0.24, math.sin(angle) * size * 0.24)
        middle = ((x + tip[0]) / 2, (base + tip[1]) / 2)
        paint = lit(vary("#2fa052", source, 0.12), light)
        drawing.add(
            f'<path d="M{x:.1f} {base:.1f}Q{middle[0] - across[0]:.1f} {middle[1] - across[1]:.1f} '
            f"{tip[0]:.1f} {tip[1]:.1f}"
            f'Q{middle[0] + across[0]:.1f} {middle[1] + across[1]:.1f} {x:.1f} {base:.1f}Z" fill="{paint}"/>'
        )
        drawing.line((x, base), tip, mix(paint, "#ffffff", 0.3), 1.2)


def draw_canyon(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Banded red cliffs on both sides of a valley with a thin river; mesas far away."""
    low = view.horizon
    for x, width, tall in ((source.uniform(90, 116), 40, 40), (source.uniform(140, 166), 30, 30)):
        drawing.polygon([(x - width * 0.7, low + 10), (x - width / 2, low - tall), (x + width / 2, low - tall),
                         (x + width * 0.7, low + 10)], lit("#c9795a", light, 0.45))  # fmt: skip
    drawing.box(0, low + 6, CANVAS, CANVAS, lit("#d99a62", light, 0.15))
    far, near = sea_colours(light, view)
    drawing.add(
        f'<path d="M126 {low + 6:.0f}Q{source.uniform(96, 160):.0f} {low + 46:.0f} 104 262L160 262Q'
        f'{source.uniform(120, 170):.0f} {low + 46:.0f} 130 {low + 6:.0f}Z" fill="{mix(far, near, 0.5)}"/>'
    )
    for side in (-1, 1):
        for reach, top, distance in ((96, low - 54, 0.3), (62, low - 78, 0.05)):
            edge = 128 + side * (128 - reach)
            outer = 128 + side * 140
            bands = ("#b9503a", "#d97a4e", "#a8452f", "#e0935f", "#c4613f")
            steps = 8
            for step in range(steps):
                y0 = top + (260 - top) * step / steps
                y1 = top + (260 - top) * (step + 1) / steps
                in0, in1 = edge - side * step * 2.6, edge - side * (step + 1) * 2.6
                jut = source.uniform(-3, 3)
                drawing.polygon([(outer, y0), (in0 + jut, y0), (in1 + jut, y1 + 0.6), (outer, y1 + 0.6)],
                                lit(vary(bands[step % 5], source, 0.04), light, distance))  # fmt: skip
    drawing.land(rolling(source, 246, 4, 0.8), lit("#c98a56", light))


def draw_cave(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """Inside a cave: the opening with the sky in it, stalactites, glowing crystals, a dark floor."""
    rock = "#4a4152" if view.time != "night" else "#2a2638"
    drawing.box(0, 0, CANVAS, CANVAS, rock)
    x, y = 128 + source.uniform(-26, 26), 112
    opening = [(x + (66 + source.uniform(-9, 9)) * math.cos(t), y + (56 + source.uniform(-7, 7)) * math.sin(t))
               for t in (index * math.pi / 9 for index in range(18))]  # fmt: skip
    drawing.polygon([(x + (a - x) * 1.18, y + (b - y) * 1.18) for a, b in opening], mix(rock, light.sky[-1][1], 0.22))
    drawing.polygon(opening, drawing.vertical(light.sky, 50, 160))
    drawing.glow(x, y, 110, light.sky[-1][1], 0.35)
    for index in range(13):
        at, tall = (
            index * 21 + source.uniform(-6, 6),
            source.uniform(18, 60) * (0.6 if abs(index * 21 - x) < 50 else 1.0),
        )
        wide = source.uniform(6, 12)
        drawing.polygon([(at - wide, -2), (at + wide, -2), (at, tall)], mix(rock, "#000000", source.uniform(0.1, 0.35)))
    floor = rolling(source, 186, 6, 1.1)
    drawing.land(floor, mix(rock, "#1a1622", 0.35))
    drawing.land(rolling(source, 214, 5, 0.9), mix(rock, "#15121c", 0.6))
    for _ in range(6):
        at = source.choice((source.uniform(4, 64), source.uniform(192, 252)))
        colour, base = source.choice(("#5fd8ff", "#b67cff", "#5fffc0", "#ff8ad6")), level_at(floor, at) + 8
        drawing.glow(at, base - 12, 34, colour, 0.5)
        for turn, size in ((-0.5, 20), (0.1, 32), (0.6, 18)):
            tip = (at + size * math.sin(turn), base - size * math.cos(turn))
            drawing.polygon([(at - 4, base), (at - 4 + (tip[0] - at) * 0.75, base + (tip[1] - base) * 0.75), tip,
                             (at + 4 + (tip[0] - at) * 0.75, base + (tip[1] - base) * 0.75), (at + 4, base)],
                            colour, 0.92)  # fmt: skip


def draw_arctic(drawing: Drawing, light: Light, source: random.Random, view: View) -> None:
    """A cold sea with icebergs, ice floes, and a snowy shore in front."""
    low = view.horizon
    for x in source.sample((40.0, 100.0, 160.0, 220.0), 2):
        snowy_peak(drawing, light, source, x, low + 2, source.uniform(70, 100), source.uniform(34, 52), "#8fa8cc", 0.4)
    far, near = sea_colours(light, view)
    drawing.box(0, low, CANVAS, CANVAS, drawing.vertical(((0, far), (1, mix(near, "#4fc0d8", 0.35))), low))
    draw_waves(drawing, light, source, low + 4, CANVAS, mix(far, "#ffffff", 0.5))
    draw_glitter(drawing, light, source, view, CANVAS)
    for x, base, size in ((source.uniform(24, 80), low + 16, 34.0), (source.uniform(160, 230), low + 30, 52.0)):
        shape = [(-0.9, 0.0), (-0.62, -0.6), (-0.3, -0.75), (-0.1, -1.15), (0.24, -0.8), (0.5, -0.55), (0.95, 0.0)]
        points = [(x + a * size + source.uniform(-3, 3) * (b < 0), base + b * size) for a, b in shape]
        drawing.polygon(points, lit("#f4fbff", light, 0.05))
        drawing.polygon(
            [points[3], points[4], points[5], points[6], (x + size * 0.1, base)], lit("#a9d8ee", light, 0.05)
        )
        drawing.ellipse(x, base + 2, size, 4, "#ffffff", 0.4)
    for _ in range(7):
        y = source.uniform(low + 24, 214)
        size = 6 + 22 * (y - low) / 90
        drawing.ellipse(source.uniform(0, CANVAS), y + 2, size, size * 0.2, lit("#8fc4dc", light))
        drawing.ellipse(source.uniform(0, CANVAS), y, size, size * 0.2, lit("#f7fcff", light))
    shore = rolling(source, 212, 5, 0.9)
    drawing.land([(x, y - 3) for x, y in shore], lit("#a9d4ea", light))
    drawing.land(shore, lit("#f6faff", light))
