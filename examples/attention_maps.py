"""The text encoder at work: what every place of the picture takes from each word, over all layers and steps."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

import stable_diffusion
from figure import grid, over_white, run
from stable_diffusion.pipeline.attention import record_attention

PROMPT = "a beautiful sunset over the ocean"
STEPS = 12


def heat(picture: Image.Image, weights: Tensor) -> Image.Image:
    """The picture darkened where a word counts little and left as it is where it counts most."""
    low, high = weights.min(), weights.max()
    unit = ((weights - low) / (high - low).clamp(min=1e-9) * 255).round().to(torch.uint8)
    mask = Image.fromarray(unit.numpy()).resize(picture.size, Image.Resampling.BICUBIC)
    return Image.composite(picture, Image.new("RGB", picture.size, (20, 20, 60)), mask)


def draw(model: stable_diffusion.StableDiffusion) -> Image.Image:
    with record_attention(model.parts.unet) as maps:
        *_, last = model.denoising_process(PROMPT, seed=1, steps=STEPS, guidance=1.0)
    picture = over_white(model.image_decoder(last.x)[0])
    words = model.text_encoder.words(PROMPT)
    cells = [heat(picture, maps.heat(positions)) for _, positions in words]
    return grid([[picture, *cells]], ["", *(word for word, _ in words)])


if __name__ == "__main__":
    run(draw, "attention_maps.png", __doc__)
