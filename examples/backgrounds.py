"""Backgrounds: a row for each prompt, without one, then transparent (over a chessboard), white, a colour, a scene."""

from __future__ import annotations

import numpy as np
from PIL import Image

import stable_diffusion
from figure import grid, run

PROMPTS = ("a red apple", "two dogs", "a cat face", "a beautiful sunset over the ocean")
BACKGROUNDS = (None, "transparent", "white", "#ffcc66", "scene")
SEED = 1


def draw(model: stable_diffusion.StableDiffusion) -> Image.Image:
    rows = [
        [
            over_chessboard(stable_diffusion.generate_image(prompt, model=model, seed=SEED, background=ground))
            for ground in BACKGROUNDS
        ]
        for prompt in PROMPTS
    ]
    return grid(rows, ["none given", *map(str, BACKGROUNDS[1:])], PROMPTS)


def over_chessboard(image: Image.Image, square: int = 8) -> Image.Image:
    """What is transparent shows the squares."""
    rows, columns = np.indices((image.height, image.width)) // square
    board = np.where((rows + columns) % 2 == 0, 235, 214).astype(np.uint8)
    return Image.alpha_composite(Image.fromarray(board).convert("RGBA"), image.convert("RGBA"))


if __name__ == "__main__":
    run(draw, "backgrounds.png", __doc__)
