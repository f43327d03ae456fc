"""The whole backdrop: sky, lamp, weather and ground in painting order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from . import land, places, water, wild
from .light import OVERCAST, Light, light_of
from .paint import CANVAS, Drawing
from .sky import (
    draw_aurora,
    draw_clouds,
    draw_lightning,
    draw_moon,
    draw_rainbow,
    draw_sky,
    draw_stars,
    draw_streaks,
    draw_sun,
)
from .view import View

Painter = Callable[[Drawing, Light, random.Random, View], None]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """`horizon`: range of its y; `floor`: y on which things in front stand; `habitat`: what may be placed there."""

    paint: Painter
    horizon: tuple[float, float]
    floor: float
    habitat: str


GROUNDS: dict[str, Ground] = {
    "ocean": Ground(paint=water.draw_ocean, horizon=(140, 165), floor=205, habitat="water"),
    "beach": Ground(paint=water.draw_beach, horizon=(118, 140), floor=236, habitat="land"),
    "lake": Ground(paint=water.draw_lake, horizon=(132, 148), floor=212, habitat="water"),
    "island": Ground(paint=water.draw_island, horizon=(135, 155), floor=205, habitat="none"),
    "underwater": Ground(paint=water.draw_underwater, horizon=(0, 0), floor=232, habitat="deep"),
    "hills": Ground(paint=land.draw_hills, horizon=(128, 150), floor=228, habitat="land"),
    "mountains": Ground(paint=land.draw_mountains, horizon=(128, 146), floor=230, habitat="land"),
    "forest": Ground(paint=land.draw_forest, horizon=(112, 132), floor=230, habitat="land"),
    "desert": Ground(paint=land.draw_desert, horizon=(130, 150), floor=228, habitat="land"),
    "field": Ground(paint=land.draw_field, horizon=(140, 165), floor=226, habitat="land"),
    "snowfield": Ground(paint=land.draw_snowfield, horizon=(126, 146), floor=230, habitat="land"),
    "city": Ground(paint=land.draw_city, horizon=(132, 146), floor=222, habitat="street"),
    "road": Ground(paint=land.draw_road, horizon=(128, 148), floor=226, habitat="street"),
    "river": Ground(paint=wild.draw_river, horizon=(118, 134), floor=234, habitat="land"),
    "waterfall": Ground(paint=wild.draw_waterfall, horizon=(112, 126), floor=248, habitat="land"),
    "volcano": Ground(paint=wild.draw_volcano, horizon=(132, 146), floor=232, habitat="land"),
    "jungle": Ground(paint=wild.draw_jungle, horizon=(108, 124), floor=232, habitat="land"),
    "canyon": Ground(paint=wild.draw_canyon, horizon=(126, 142), floor=248, habitat="land"),
    "cave": Ground(paint=wild.draw_cave, horizon=(112, 112), floor=232, habitat="land"),
    "arctic": Ground(paint=wild.draw_arctic, horizon=(112, 128), floor=238, habitat="land"),
    "garden": Ground(paint=places.draw_garden, horizon=(120, 134), floor=236, habitat="land"),
    "park": Ground(paint=places.draw_park, horizon=(124, 140), floor=234, habitat="land"),
    "farm": Ground(paint=places.draw_farm, horizon=(120, 134), floor=234, habitat="land"),
    "village": Ground(paint=places.draw_village, horizon=(120, 136), floor=238, habitat="street"),
    "winter village": Ground(paint=places.draw_winter_village, horizon=(118, 132), floor=236, habitat="land"),
    "harbour": Ground(paint=places.draw_harbour, horizon=(112, 126), floor=220, habitat="water"),
    "street": Ground(paint=places.draw_street, horizon=(122, 136), floor=226, habitat="street"),
    "room": Ground(paint=places.draw_room, horizon=(126, 136), floor=236, habitat="indoor"),
    "space": Ground(paint=land.draw_space, horizon=(0, 0), floor=0, habitat="space"),
}
SKYLESS = ("underwater", "space")
INDOORS = ("room", "cave")
"""Grounds with a piece of sky in a window or an opening only: no weather, no lamp, no tint of what is placed there."""


def lamp_place(
    source: random.Random, time: str, weather: str, ground: str, horizon: float
) -> tuple[float, float, float] | None:
    """(x, y, radius) of sun or moon, or None when the sky hides it."""
    if weather in OVERCAST or weather in ("aurora", "rainbow") or ground in SKYLESS + INDOORS:
        return None
    x = CANVAS * source.uniform(0.3, 0.7)
    flat = ground in ("ocean", "beach", "island", "field", "road", "desert")
    if time == "sunset":
        radius = source.uniform(19, 27)
        return x, horizon - radius * (source.uniform(0.05, 0.6) if flat else source.uniform(0.8, 1.5)), radius
    if time == "dawn":
        radius = source.uniform(14, 19)
        return x, horizon - radius * (source.uniform(0.3, 1.3) if flat else source.uniform(1.2, 2.2)), radius
    high = CANVAS * source.uniform(0.14, 0.22)
    return CANVAS * source.choice((0.2, 0.26, 0.74, 0.8)), high, source.uniform(15, 21)


def draw_landscape(time: str, weather: str, ground: str, moon: str, decorated: bool, seed: str) -> tuple[str, float]:
    """The backdrop as SVG and its horizon. `moon`: "full", "crescent" or "none" (night only)."""
    source = random.Random(seed)
    kind, light, drawing = GROUNDS[ground], light_of(time, weather), Drawing()
    horizon = source.uniform(*kind.horizon)
    lamp = lamp_place(source, time, weather, ground, horizon)
    if time == "night" and moon == "none":
        lamp = None
    view = View(time=time, weather=weather, horizon=horizon, lamp=lamp[:2] if lamp else None, decorated=decorated)
    if ground not in SKYLESS + INDOORS:
        draw_sky(drawing, light, horizon)
        if time == "night" and weather not in OVERCAST:
            draw_stars(drawing, source, horizon)
        if weather == "aurora":
            draw_aurora(drawing, source, horizon)
        if lamp and time == "night":
            draw_moon(drawing, light, source, *lamp, full=moon == "full")
        elif lamp:
            draw_sun(drawing, light, *lamp, warm=time != "noon")
        if weather == "clear" and time in ("dawn", "sunset"):
            draw_streaks(drawing, light, source, horizon)
        if weather == "rainbow":
            draw_rainbow(drawing, source, horizon)
        draw_clouds(drawing, light, source, horizon, weather)
        if weather == "storm":
            draw_lightning(drawing, source, horizon)
    kind.paint(drawing, light, source, view)
    return drawing.svg(), horizon
