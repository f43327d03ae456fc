"""The decoder: the channels of a latent, its plain linear preview, and what the decoder makes of it."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

import stable_diffusion
from figure import grid, run

PROMPTS = ("a red apple", "a cat face", "a beautiful sunset over the ocean")
CHANNELS = 4


def grey(channel: Tensor, size: tuple[int, int]) -> Image.Image:
    """One channel [h,w] as a grey picture: black at minus three, white at plus three (latents have unit scale)."""
    unit = ((channel / 6 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(unit.cpu().numpy()).resize(size, Image.Resampling.NEAREST)


def draw(model: stable_diffusion.StableDiffusion) -> Image.Image:
    rows = []
    for prompt in PROMPTS:
        latent = list(model.denoising_process(prompt, seed=1))[-1].x
        (picture,) = model.image_decoder(latent)
        channels = [grey(channel, picture.size) for channel in latent[0, :CHANNELS]]
        rows.append([*channels, model.image_decoder.preview(latent).resize(picture.size), picture])
    shown = range(1, min(CHANNELS, len(latent[0])) + 1)
    return grid(rows, [*(f"channel {k}" for k in shown), "preview", "decoded"])


if __name__ == "__main__":
    run(draw, "latents_and_decodings.png", __doc__)
