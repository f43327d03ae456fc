"""The road from a sentence to a picture, a figure for each part: docs/tutorial.md walks along it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image, ImageDraw

import stable_diffusion
from figure import GAP, font, grid, over_white, run_all

TEXT = "a beautiful sunset over the ocean"
TEXTS = ("a red apple", "a green apple", "an apple tree", "a cat face", "two dogs", "a sunset at the beach", TEXT)
OTHERS = ("a red apple", "a cat face", TEXT)
SEED = 7
STRENGTHS = (0.6, 0.7, 0.8, 0.9, 1.0)
AFTER = (0, 50, 150, 300, 500, 700, 900)
"""How many steps of the forward chain lie before each state that is shown."""


def text(model: stable_diffusion.StableDiffusion) -> Image.Image:
    """How near sentences are to each other for the text encoder: the cosine of the angle between their vectors."""
    vectors = torch.nn.functional.normalize(model.text_encoder(TEXTS).pooled, dim=-1)
    near = vectors @ vectors.T
    left, side = max(int(font().getlength(each)) for each in TEXTS) + 2 * GAP, 44
    sheet = Image.new("RGB", (left + len(TEXTS) * side + GAP, len(TEXTS) * side + 2 * GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for row, sentence in enumerate(TEXTS):
        top = GAP + row * side
        pen.text((GAP, top + 14), sentence, "black", font())
        for column in range(len(TEXTS)):
            value = float(near[row, column])
            shade = round(255 - 175 * max(value, 0.0))
            box = (left + column * side, top, left + column * side + side - 2, top + side - 2)
            pen.rectangle(box, (shade, round(255 - 105 * max(value, 0.0)), 255))
            pen.text((box[0] + 9, top + 14), f"{value:.2f}", "black", font())
    return sheet


def forward(model: stable_diffusion.StableDiffusion) -> Image.Image:
    """A picture drowning in noise, step by step, decoded on the way."""
    image = model.image_encoder(stable_diffusion.generate_image(TEXT, model=model, seed=SEED))
    states = {0: image}
    for step in range(AFTER[-1]):
        image = model.diffusion_process.add_gaussian_noise(image, seed=SEED)
        states[step + 1] = image
    return grid([[model.image_decoder(states[n])[0] for n in AFTER]], [f"{n} steps" for n in AFTER])


def backward(model: stable_diffusion.StableDiffusion) -> Image.Image:
    """The way back: at some steps the state, and beneath it the clean picture that the model expects."""
    steps = list(model.denoising_process(model.text_encoder(TEXT), seed=SEED))
    shown = steps[:: max(1, len(steps) // 6)][:6] + steps[-1:]
    rows = [
        [model.image_decoder(state)[0] for state in states]
        for states in ([s.x for s in shown], [s.denoised for s in shown])
    ]
    return grid(rows, [f"step {step.index + 1}" for step in shown], ["state", "expected"])


def guided(model: stable_diffusion.StableDiffusion) -> Image.Image:
    """Three sentences from one and the same noise: the words decide at every step."""
    rows = []
    for sentence in OTHERS:
        steps = list(model.denoising_process(sentence, seed=SEED))
        shown = steps[:: max(1, len(steps) // 6)][:6] + steps[-1:]
        rows.append([model.image_decoder(step.denoised)[0] for step in shown])
    return grid(rows, [f"step {step.index + 1}" for step in shown], OTHERS)


def decoded(model: stable_diffusion.StableDiffusion) -> Image.Image:
    """Four channels of a latent as greys, and the picture that the decoder makes of it."""
    *_, last = model.denoising_process(TEXT, seed=SEED)
    (picture,) = model.image_decoder(last.x)
    channels = []
    for channel in last.x[0, :4]:
        unit = (channel - channel.min()) / (channel.max() - channel.min())
        grey = Image.fromarray((unit * 255).byte().numpy())
        channels.append(grey.resize(picture.size, Image.Resampling.NEAREST))
    names = [f"channel {k + 1}" for k in range(len(channels))]
    return grid([[*channels, picture]], [*names, "decoded"])


def both_ways(model: stable_diffusion.StableDiffusion) -> Image.Image:
    """An apple, taken some of the way into noise and back as a lemon."""
    apple = stable_diffusion.generate_image(OTHERS[0], model=model, seed=SEED)
    latent, row = model.image_encoder(apple), [apple]
    for strength in STRENGTHS:
        *_, last = model.denoising_process("a lemon", latent=latent, strength=strength, seed=SEED)
        row.append(model.image_decoder(last.x)[0])
    return grid([row], [OTHERS[0], *(f"strength {strength}" for strength in STRENGTHS)])


FIGURES: dict[str, Callable[[stable_diffusion.StableDiffusion], Image.Image]] = {
    "tutorial_text.webp": text,
    "tutorial_forward.webp": forward,
    "tutorial_backward.webp": backward,
    "tutorial_guided.webp": guided,
    "tutorial_decoded.webp": decoded,
    "tutorial_both_ways.webp": both_ways,
}


def draw(model: stable_diffusion.StableDiffusion) -> Image.Image:
    """All figures, one beneath the other."""
    figures = [over_white(figure(model)) for figure in FIGURES.values()]
    sheet = Image.new("RGB", (max(f.width for f in figures), sum(f.height for f in figures)), "white")
    top = 0
    for figure in figures:
        sheet.paste(figure, (0, top))
        top += figure.height
    return sheet


if __name__ == "__main__":
    run_all(FIGURES, __doc__)
