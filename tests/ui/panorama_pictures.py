"""Panoramas whose every direction has a colour of its own, and what a browser shows of them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

VENDOR = Path(__file__).parent / "vendor"
COLOURS = {
    "ahead": (255, 0, 0),
    "right": (0, 255, 0),
    "behind": (0, 0, 255),
    "left": (255, 255, 0),
    "up": (255, 255, 255),
    "down": (0, 0, 0),
}
HARMLESS = ("GL Driver Message", "disable the orientation override")
"""In Chromium's notes on its own software renderer and emulated sensors, which say nothing of a page."""


def directions(width: int = 256) -> Image.Image:
    """Four quarters around, white above 45 degrees and black below -45."""
    image = Image.new("RGB", (width, width // 2), COLOURS["up"])
    quarter, eighth = width // 4, width // 8
    for name, middle in (("ahead", 4), ("right", 6), ("behind", 8), ("behind", 0), ("left", 2)):
        image.paste(COLOURS[name], (middle * eighth - eighth, quarter // 2, middle * eighth + eighth, quarter // 2 * 3))
    image.paste(COLOURS["down"], (0, quarter // 2 * 3, width, quarter * 2))
    return image


def seen(page: Any, x: float = 0.5, y: float = 0.4) -> str:
    """The direction whose colour a screenshot shows at a part of the page's width and height."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    found = image.getpixel((int(image.width * x), int(image.height * y)))
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], found, strict=True)))


def eventually(check: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until the check holds; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def is_harmless(text: str) -> bool:
    """Whether a line of the console is Chromium's own."""
    return any(part in text for part in HARMLESS)
