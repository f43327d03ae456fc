"""The denoising process: the noisy state and the estimate of the clean picture, step by step."""

from __future__ import annotations

from PIL import Image

import stable_diffusion
from figure import grid, run

PROMPT = "a beautiful sunset over the ocean"
STEPS, SHOWN = 20, 8


def draw(model: stable_diffusion.StableDiffusion) -> Image.Image:
    steps = list(model.denoising_process(PROMPT, seed=1, steps=STEPS))
    chosen = [steps[round(k * (len(steps) - 1) / (SHOWN - 1))] for k in range(SHOWN)]
    schedule = model.diffusion_process.schedule
    rows: list[list[Image.Image]] = [[], []]
    for step in chosen:
        # The state after a step, scaled to unit spread, as the network sees it.
        spread = step.x.std().clamp(min=1.0) if schedule.sigma_max > 1 else 1.0
        rows[0] += model.image_decoder(step.x / spread)
        rows[1] += model.image_decoder(step.denoised)
    return grid(rows, [f"step {step.index + 1}" for step in chosen], ["state", "estimate"])


if __name__ == "__main__":
    run(draw, "denoising_trajectory.png", __doc__)
