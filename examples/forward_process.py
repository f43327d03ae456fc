"""The diffusion process: a picture at rising noise levels, in its latent and, above, in its pixels."""

from __future__ import annotations

from PIL import Image

import stable_diffusion
from figure import grid, run
from stable_diffusion.pipeline.image import from_model, to_images, to_model

TIMESTEPS = (0, 100, 200, 400, 600, 800, 999)
PROMPT = "a red apple"


def draw(model: stable_diffusion.StableDiffusion) -> Image.Image:
    picture = stable_diffusion.generate_image(PROMPT, model=model, seed=1)
    process = model.diffusion_process
    pixels = to_model(picture, model.image_encoder.vae.config.image_channels)
    latent = model.image_encoder(picture)
    rows: list[list[Image.Image]] = [[], []]
    for t in TIMESTEPS:
        rows[0] += to_images(from_model(process.add_gaussian_noise(pixels, t, seed=0)))
        rows[1] += model.image_decoder(process.add_gaussian_noise(latent, t, seed=0))
    return grid(rows, [f"t = {t}" for t in TIMESTEPS], ["noise on pixels", "noise on the latent"])


if __name__ == "__main__":
    run(draw, "forward_process.png", __doc__)
