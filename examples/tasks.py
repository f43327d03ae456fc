"""What can be done besides a picture from a sentence: each row is one task, on the same few prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw

import stable_diffusion
from figure import GAP, LABEL, font, over_white, run, shown

SCENE = "a mountain landscape with a lake"
SEED = 4


def draw(model: stable_diffusion.StableDiffusion) -> Image.Image:
    width, height = model.defaults.width, model.defaults.height

    def paint(prompt: str, **settings: Any) -> Image.Image:
        return stable_diffusion.generate_image(prompt, model=model, **{"seed": SEED, **settings})

    small = paint(SCENE)
    double = {"width": 2 * width, "height": 2 * height}
    margins = {"outpaint": (width // 2, 0, width // 2, 0)}
    tile = paint("green leaves", canvas={"tiling": "x"})
    return sheet(
        [
            ("hires fix: the model's own size, twice that at once, and in two passes",
             [small, paint(SCENE, **double), paint(SCENE, hires={"scale": 2, "strength": 0.5})]),
            ("outpaint: added on the left and right", [small, paint(SCENE, image=small, canvas=margins)]),
            ("tiling x, three copies side by side", [tile, beside([tile] * 3)]),
            ("variation strength 0, 0.2, 0.4, 0.6",
             [paint("a cat face", variation={"strength": s / 5, "seed": 2 if s else None}) for s in range(4)]),
            ("[cat face:red apple:when], when = 0.1, 0.2, 0.4, 0.6",
             [paint(f"a [cat face:red apple:{when}]") for when in (0.1, 0.2, 0.4, 0.6)]),
        ]
    )  # fmt: skip


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures without a gap, so that a seam would show."""
    strip = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
    left = 0
    for picture in pictures:
        strip.paste(over_white(picture), (left, 0))
        left += picture.width
    return strip


def sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """Rows of pictures of any size, each under its label; the first is of the model's own."""
    side = rows[0][1][0].width
    rows = [(text, [shown(picture, side) for picture in pictures]) for text, pictures in rows]
    width = max(sum(p.width + GAP for p in pictures) for _, pictures in rows) + GAP
    heights = [LABEL + GAP + max(p.height for p in pictures) for _, pictures in rows]
    figure = Image.new("RGB", (max(width, 420), sum(heights) + GAP), "white")
    pen, top = ImageDraw.Draw(figure), 0
    for (text, pictures), height in zip(rows, heights, strict=True):
        pen.text((GAP, top + 2), text, "black", font())
        left = GAP
        for picture in pictures:
            figure.paste(picture, (left, top + LABEL))
            left += picture.width + GAP
        top += height
    return figure


if __name__ == "__main__":
    run(draw, "tasks.png", __doc__)
