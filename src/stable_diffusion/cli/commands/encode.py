"""`stable-diffusion encode`: a picture to a latent file."""

from __future__ import annotations

from pathlib import Path

import click

from ...errors import InvalidRequest
from .. import files
from ..command import Command, Whole
from ..format import echo_json
from ..options import load_model, model_options
from ..output import Output, output_options

EXAMPLES = """
stable-diffusion encode apple.png
stable-diffusion encode photo.jpg --model v1-5-pruned-emaonly.safetensors --out photo.safetensors
"""


@click.command("encode", cls=Command, examples=EXAMPLES)
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--seed", type=Whole(0, 2**64 - 1), show_default="the mean", help="Draw a sample instead.")
@output_options("PICTURE.safetensors here", "File (.safetensors) or folder.")
@model_options
def command(
    picture: Path,
    seed: int | None,
    model: str | None,
    output: Output,
) -> None:
    """Encode PICTURE into the latent that diffusion works on, a .safetensors file.

    Sides that are not multiples of the model's factor are cropped evenly to the next lower multiple.
    """
    from ...request.pictures import cover, open_picture
    from ..latent_file import save_latent

    out = output.out
    if out is not None and not out.is_dir() and out.suffix not in ("", ".safetensors"):
        raise InvalidRequest(f"--out {str(out)!r} does not end in .safetensors, which is what a latent is written as")
    image = open_picture(picture)
    path = files.destination(
        Path(".") if out is None else out, picture.stem, suffix=".safetensors", overwrite=output.overwrite
    )
    loaded = load_model(model)
    factor = loaded.image_encoder.latents.downscale
    width, height = (side // factor * factor for side in image.size)
    if width == 0 or height == 0:
        raise InvalidRequest(f"{str(picture)!r} is {image.width}x{image.height}; expected at least {factor}x{factor}")
    latent = loaded.image_encoder(cover(image, width, height), seed=seed)
    files.prepare_folder(path)
    save_latent(path, latent, loaded.name)
    if output.as_json:
        echo_json({"path": path, "shape": list(latent.shape), "width": width, "height": height})
    else:
        click.echo(str(path))
