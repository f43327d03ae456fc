"""`stable-diffusion decode`: a latent file to pictures."""

from __future__ import annotations

from pathlib import Path

import click

from ..command import Command
from ..format import echo_json
from ..options import load_model, model_options
from ..output import Output, output_options

EXAMPLES = """
stable-diffusion decode apple.safetensors
stable-diffusion decode apple.safetensors --out back.png
"""


@click.command("decode", cls=Command, examples=EXAMPLES)
@click.argument("latent", type=click.Path(path_type=Path))
@output_options("outputs/LATENT.png")
@model_options
def command(latent: Path, model: str | None, output: Output) -> None:
    """Decode LATENT, a file that `encode` wrote, into a picture (several where it holds several).

    The model must be the one that encoded it, or one with the same latent space.
    """
    from ..latent_file import load_latent

    tensor, name = load_latent(latent)
    output.check(len(tensor))
    loaded = load_model(model)
    if name and name != loaded.name:
        click.echo(f"note: this latent was encoded by {name!r} and is decoded by {loaded.name!r}", err=True)
    paths = []
    for index, image in enumerate(loaded.image_decoder(tensor)):
        path = output.save(image, latent.stem, apart=index + 1 if len(tensor) > 1 else None)
        paths.append(path)
        if not output.as_json:
            click.echo(str(path))
    if output.as_json:
        echo_json({"paths": paths})
