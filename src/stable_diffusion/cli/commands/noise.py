"""`stable-diffusion noise`: the forward process of a picture, as a strip."""

from __future__ import annotations

from pathlib import Path

import click

from ..command import Command, Values, Whole
from ..format import echo_json
from ..options import load_model, model_options
from ..output import Output, output_options

EXAMPLES = """
stable-diffusion noise apple.png
stable-diffusion noise apple.png --timesteps 0,250,500,750,1000 --pixels --out strip.png
"""


@click.command("noise", cls=Command, examples=EXAMPLES)
@click.argument("picture", type=click.Path(path_type=Path))
@click.option(
    "--timesteps", type=Values(float), default="0,100,200,400,600,800,999", show_default=True, help="From 0 to 1000."
)
@click.option("--pixels", is_flag=True, help="Add noise to the pixels instead of the latent.")
@click.option("--seed", type=Whole(0, 2**64 - 1), default=0, show_default=True, help="Of the noise.")
@output_options("outputs/noise-PICTURE.png")
@model_options
def command(
    picture: Path,
    timesteps: tuple[float, ...],
    pixels: bool,
    seed: int,
    model: str | None,
    output: Output,
) -> None:
    """Show what the forward process does to PICTURE: a strip from clean to noise.

    At every timestep the latent is mixed with the same noise and decoded again.
    """
    from ...pipeline.grid import draw
    from ...pipeline.image import from_model, to_images, to_model
    from ...request.pictures import cover, open_picture

    image = open_picture(picture)
    output.check()
    loaded = load_model(model)
    factor = loaded.image_encoder.latents.downscale
    width, height = (max(1, side // factor) * factor for side in image.size)
    image, process = cover(image, width, height), loaded.diffusion_process
    channels = loaded.image_encoder.vae.config.image_channels
    clean = to_model(image, channels) if pixels else loaded.image_encoder(image)
    pictures, labels, levels = [], [], []
    for t in timesteps:
        noisy = process.add_gaussian_noise(clean, t, seed=seed)
        pictures += to_images(from_model(noisy)) if pixels else loaded.image_decoder(noisy)
        sigma, signal, _ = process.levels(t)
        levels.append({"timestep": t, "sigma": sigma, "signal": signal})
        labels.append(f"t {t:g}")
    path = output.save(draw(labels, [""], [""], pictures), f"noise-{picture.stem}")
    if output.as_json:
        echo_json({"path": path, "levels": levels})
    else:
        click.echo(str(path))
