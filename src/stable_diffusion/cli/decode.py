"""`stable-diffusion decode`: a latent file to pictures."""

from __future__ import annotations

from pathlib import Path

import click

from stable_diffusion.cli import files
from stable_diffusion.cli.command import Command
from stable_diffusion.cli.format import echo_json
from stable_diffusion.cli.generate import check_destination
from stable_diffusion.cli.options import json_option, load_model, model_options, out_options

EXAMPLES = """
stable-diffusion decode apple.safetensors
stable-diffusion decode apple.safetensors --out back.png
"""


@click.command("decode", cls=Command, examples=EXAMPLES)
@click.argument("latent", type=click.Path(path_type=Path))
@model_options
@out_options("outputs/LATENT.png")
@json_option
def command(
    latent: Path, model: str | None, device: str, dtype: str, out: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Decode LATENT, a file that `encode` wrote, into a picture (several where it holds several).

    The model must be the one that encoded it, or one with the same latent space.
    """
    from stable_diffusion.cli.latent_file import load_latent
    from stable_diffusion.pipeline.files import save_image

    tensor, name = load_latent(latent)
    check_destination(out, len(tensor), overwrite)
    loaded = load_model(model, device, dtype)
    if name and name != loaded.name:
        click.echo(f"note: this latent was encoded by {name!r} and is decoded by {loaded.name!r}", err=True)
    paths = []
    for index, image in enumerate(loaded.image_decoder(tensor)):
        place = out
        if out is not None and out.suffix and not out.is_dir() and len(tensor) > 1:
            place = files.free_name(out.with_name(f"{out.stem}-{index + 1}{out.suffix}"))
        path = files.destination(place, latent.stem, overwrite=overwrite)
        paths.append(save_image(image, path, overwrite=overwrite))
        if not as_json:
            click.echo(str(path))
    if as_json:
        echo_json({"paths": paths})
