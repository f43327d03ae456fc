"""Seeds: the same three prompts from eight start noises each."""

from __future__ import annotations

from PIL import Image

import stable_diffusion
from figure import grid, run

PROMPTS = ("a red apple", "a cat face", "a beautiful sunset over the ocean")
SEEDS = 8


def draw(model: stable_diffusion.StableDiffusion) -> Image.Image:
    rows = [stable_diffusion.generate_image(prompt, model=model, seed=1, count=SEEDS) for prompt in PROMPTS]
    return grid(rows, [f"seed {k + 1}" for k in range(SEEDS)], PROMPTS)


if __name__ == "__main__":
    run(draw, "seed_grid.png", __doc__)
