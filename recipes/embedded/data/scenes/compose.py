"""From a scene graph to a picture: backdrop, placed things with shadow and tint, and what falls in front."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..render import Picture, draw_svg, trimmed
from .graph import Placeable, Scene
from .landscape import GROUNDS, INDOORS, SKYLESS, draw_landscape
from .light import Light, light_of
from .paint import CANVAS, Drawing
from .sky import draw_falling

Asset = Callable[[str, str], Picture | None]


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Where one instance goes, in canvas units: centre x, y of its foot, height; lower `layer` is painted first."""

    concept: str
    x: float
    foot: float
    height: float
    layer: int = 0
    floats: bool = False


def row_of(
    concept: str, count: int, x: float, foot: float, height: float, source: random.Random, floats: bool, layer: int
) -> list[Spot]:
    """`count` instances side by side around x."""
    size = height * {1: 1.0, 2: 0.9, 3: 0.78}[count]
    step = min(size * 1.08, 84.0)
    return [
        Spot(
            concept=concept,
            x=x + (index - (count - 1) / 2) * step,
            foot=foot + (source.uniform(-12, 12) if floats else source.uniform(-4, 5)),
            height=size,
            layer=layer,
            floats=floats,
        )
        for index in range(count)
    ]


def large_spot(place: Placeable, foot: float, floats: bool, source: random.Random) -> Spot:
    """One thing at half the canvas's height or more, low enough to be whole."""
    height = min(max(place.height * 1.7, 128.0), 160.0)
    foot = min(max(foot, height + 24) if floats else foot + 10, CANVAS - 6)
    x = CANVAS / 2 + source.uniform(-22, 22)
    return Spot(concept=place.concept, x=x, foot=foot, height=height, floats=floats)


def layout(scene: Scene, table: dict[str, Placeable], source: random.Random) -> list[Spot]:
    """Spots of all instances. The relation decides sides, depth and height."""
    if not scene.things:
        return []
    floor, habitat = GROUNDS[scene.ground].floor, GROUNDS[scene.ground].habitat
    things = [(thing, table[thing.concept]) for thing in scene.things]
    hanging = habitat in ("deep", "space")
    if not things:
        return []

    def foot_of(place: Placeable) -> float:
        if place.habitat == "sky" and not hanging:
            return source.uniform(88, 108)
        return source.uniform(150, 172) if hanging and place.concept != "crab" else floor + source.uniform(-3, 5)

    if len(things) == 1:
        thing, place = things[0]
        if scene.large:
            return [large_spot(place, foot_of(place), place.habitat == "sky" or hanging, source)]
        grown = min(place.height * 1.2, 145.0)
        floats = place.habitat == "sky" or hanging
        return row_of(
            thing.concept, thing.count, CANVAS / 2 + source.uniform(-22, 22), foot_of(place), grown, source, floats, 0
        )
    (first, a), (second, b) = things
    relation = scene.relation
    if relation == "above":
        middle = CANVAS / 2 + source.uniform(-26, 26)
        upper = Spot(
            concept=first.concept,
            x=middle + source.uniform(-10, 10),
            foot=source.uniform(76, 84),
            height=a.height,
            floats=True,
        )
        return [
            upper,
            Spot(concept=second.concept, x=middle, foot=foot_of(b), height=min(b.height, 112), layer=1, floats=hanging),
        ]
    if relation in ("in front of", "behind"):
        front, back = (a, b) if relation == "in front of" else (b, a)
        middle, side = CANVAS / 2 + source.uniform(-18, 18), source.choice((-1, 1))
        rear = Spot(concept=back.concept, x=middle, foot=floor - 20, height=max(back.height, 118) * 1.12)
        return [
            rear,
            Spot(
                concept=front.concept,
                x=middle + side * source.uniform(14, 30),
                foot=floor + 12,
                height=min(front.height, 74),
                layer=1,
            ),
        ]
    if relation == "under":
        middle = CANVAS / 2 + source.uniform(-20, 20)
        roof = Spot(concept=second.concept, x=middle, foot=floor, height=max(b.height, 150))
        below = row_of(
            first.concept,
            first.count,
            middle + source.choice((-1, 1)) * 26 * (first.count == 1),
            floor + 8,
            min(a.height, 62),
            source,
            False,
            1,
        )
        return [roof, *below]
    if relation == "on":
        middle, carrier = CANVAS / 2 + source.uniform(-16, 16), min(b.height * 1.05, 120.0)
        base = Spot(concept=second.concept, x=middle, foot=floor, height=carrier)
        return [
            base,
            Spot(
                concept=first.concept,
                x=middle + source.uniform(-6, 6),
                foot=floor - carrier + 5,
                height=54,
                layer=1,
                floats=True,
            ),
        ]
    side = {"left of": -1, "right of": 1}.get(relation or "", source.choice((-1, 1)))
    gap, middle = source.uniform(50, 58), CANVAS / 2 + source.uniform(-10, 10)
    return [
        Spot(concept=first.concept, x=middle + side * gap, foot=foot_of(a), height=min(a.height, 112), floats=hanging),
        Spot(concept=second.concept, x=middle - side * gap, foot=foot_of(b), height=min(b.height, 112), floats=hanging),
    ]


def paste(canvas: Image.Image, picture: Picture, spot: Spot, light: Light, water: bool) -> None:
    """Put one asset on the canvas, tinted by the light, with a contact shadow or a water line."""
    unit = canvas.width / CANVAS
    image = trimmed(picture)
    height = max(4, round(spot.height * unit))
    width = max(4, round(height * image.width / image.height))
    if width > 150 * unit:  # wide things: a train, a whale
        width, height = round(150 * unit), max(4, round(150 * unit * image.height / image.width))
    image = image.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    values = np.asarray(image).astype(np.float32)
    values[..., :3] *= np.array(light.ambient, dtype=np.float32)
    image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8), "RGBA")
    left, top = round(spot.x * unit - width / 2), round(spot.foot * unit) - height
    if not spot.floats:
        shade = Drawing()
        colour, thick = ("#ffffff", 3.5) if water else ("#10131f", 6.0)
        shade.ellipse(spot.x, spot.foot - 1.5, width / unit * 0.46, thick, colour, 0.45 if water else 0.3)
        canvas.alpha_composite(draw_svg(shade.svg(), canvas.width))
    layer = Image.new("RGBA", canvas.size)
    layer.paste(image, (left, top))
    canvas.alpha_composite(layer)


def compose(scene: Scene, size: int, asset: Asset, table: dict[str, Placeable]) -> Picture | None:
    """Draw a scene at `size` pixels. uint8 [S, S, 4], opaque. None when an asset is missing in the scene's style."""
    assets = {thing.concept: asset(thing.concept, scene.style or "") for thing in scene.things}
    if any(picture is None for picture in assets.values()):
        return None
    svg, _ = draw_landscape(scene.time, scene.weather, scene.ground, scene.moon, not scene.things, scene.seed)
    canvas = draw_svg(svg, size)
    light, source = light_of(scene.time, scene.weather), random.Random(scene.seed + "layout")
    if scene.ground in SKYLESS + INDOORS:
        light = light_of("noon", "clear")
    water = GROUNDS[scene.ground].habitat == "water"
    for spot in sorted(layout(scene, table, source), key=lambda spot: (spot.layer, spot.foot)):
        picture = assets[spot.concept]
        assert picture is not None  # checked above
        paste(canvas, picture, spot, light, water)
    if scene.weather in ("rain", "storm", "snow", "fog"):
        front = Drawing()
        draw_falling(front, source, scene.weather)
        canvas.alpha_composite(draw_svg(front.svg(), size))
    result = np.array(canvas)
    result[..., 3] = 255
    return result
