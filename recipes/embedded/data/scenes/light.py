"""Light of a scene: palettes by time of day and weather, and how they tint the ground and the things on it."""

from __future__ import annotations

from dataclasses import dataclass

from .paint import mix

TIMES = ("dawn", "noon", "sunset", "night")
WEATHERS = ("clear", "clouds", "rain", "snow", "storm", "fog", "rainbow", "aurora")


@dataclass(frozen=True, kw_only=True)
class Light:
    """`sky`: gradient stops from zenith to horizon; `shade`, `depth`: what the ground is mixed with and how much;
    `haze`: colour of far things; `sun`: colour of sun or moon; `ambient`: multiplier for placed things, RGB 0 to 1."""

    sky: tuple[tuple[float, str], ...]
    shade: str
    depth: float
    haze: str
    sun: str
    cloud: str
    ambient: tuple[float, float, float]


CLEAR = {
    "dawn": Light(
        sky=((0.0, "#5f86d6"), (0.45, "#b7a6dc"), (0.75, "#ffc0b0"), (1.0, "#ffe9bd")),
        shade="#7b5a8c", depth=0.22, haze="#f3c3c0", sun="#fff3c4", cloud="#ffdfe0", ambient=(1.0, 0.94, 0.93),
    ),
    "noon": Light(
        sky=((0.0, "#2380e6"), (0.6, "#7cc6f8"), (1.0, "#d8f1ff")),
        shade="#ffffff", depth=0.0, haze="#cfe9fb", sun="#ffe14d", cloud="#ffffff", ambient=(1.0, 1.0, 1.0),
    ),
    "sunset": Light(
        sky=((0.0, "#3b2a72"), (0.35, "#a63a78"), (0.65, "#f4633f"), (0.88, "#ffa63d"), (1.0, "#ffd76a")),
        shade="#4a1f4d", depth=0.42, haze="#e8734f", sun="#fff0a8", cloud="#f58a6b", ambient=(0.98, 0.82, 0.74),
    ),
    "night": Light(
        sky=((0.0, "#050a2b"), (0.6, "#13235f"), (1.0, "#31478f")),
        shade="#0d1745", depth=0.5, haze="#263a7d", sun="#fdf6d2", cloud="#3a4a86", ambient=(0.75, 0.79, 0.95),
    ),
}  # fmt: skip
GREY_SKY = {"dawn": "#aab0c2", "noon": "#b4c0cc", "sunset": "#8c7786", "night": "#1b2443"}
OVERCAST = {"rain": 0.8, "storm": 0.92, "snow": 0.72, "fog": 0.7}


def light_of(time: str, weather: str) -> Light:
    """The palette of a time of day under a weather: overcast skies lose colour, storms darken."""
    clear = CLEAR[time]
    if weather not in OVERCAST:
        return clear
    grey = GREY_SKY[time]
    top = {"storm": mix(grey, "#141826", 0.7), "rain": mix(grey, "#3c4a5e", 0.55), "snow": grey, "fog": grey}[weather]
    low = {"storm": mix(grey, "#39425a", 0.5), "rain": mix(grey, "#7e8da0", 0.5)}.get(
        weather, mix(grey, "#ffffff", 0.45)
    )
    if time == "night":
        low = mix(low, "#1c2750", 0.6)
    share = OVERCAST[weather]
    stops = ((0.0, mix(clear.sky[0][1], top, share)), (1.0, mix(clear.sky[-1][1], low, share)))
    dim = {"storm": 0.72, "rain": 0.85}.get(weather, 0.95)
    red, green, blue = (value * dim for value in clear.ambient)
    return Light(
        sky=stops,
        shade=mix(clear.shade, "#39455c", 0.6),
        depth=max(clear.depth, {"storm": 0.5, "rain": 0.32}.get(weather, 0.15)),
        haze=mix(stops[1][1], clear.haze, 0.25),
        sun=clear.sun,
        cloud=mix(top, "#ffffff" if weather in ("snow", "fog") else "#20263a", 0.35),
        ambient=(red, green, blue),
    )


def lit(colour: str, light: Light, distance: float = 0.0) -> str:
    """A ground colour under this light; `distance` 0 (near) to 1 (at the horizon) blends into the haze."""
    return mix(mix(colour, light.shade, light.depth), light.haze, 0.75 * distance)
