"""`stable-diffusion decode`: a latent file to pictures."""

from __future__ import annotations

from pathlib import Path

import click

from .. import files
from ..command import Command
from ..format import echo_json
from ..options import json_option, load_model, model_options, out_options
from .generate import check_destination

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
    from ...pipeline.output import save_image
    from ..latent_file import load_latent

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
