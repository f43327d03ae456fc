"""`stable-diffusion convert`: a model from one file to a diffusers folder, or back."""

from __future__ import annotations

from pathlib import Path

import click

from ..command import Command, apply
from ..files import named_model
from ..format import echo_json, json_option
from ..options import chosen, written_part_options

EXAMPLES = """
stable-diffusion convert v1-5-pruned.safetensors stable-diffusion-v1-5/ --dtype fp16
stable-diffusion convert stable-diffusion-2-1/ sd21.safetensors
stable-diffusion convert base.safetensors styled.safetensors --lora style.safetensors:0.8
stable-diffusion convert unet.safetensors whole.safetensors --vae vae.safetensors --text-encoder clip.safetensors
"""


@click.command("convert", cls=Command, examples=EXAMPLES)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "fp32", "fp16", "bf16"]),
    show_default="as stored",
    help="Number type of what is written.",
)
@click.option("--lora", "loras", multiple=True, metavar="FILE[:STRENGTH]", help="Make it part of the weights.")
@click.option("--variant", metavar="NAME", help="Written into the names of a folder's weights, such as fp16.")
@click.option("--source-variant", metavar="NAME", help="Which weights of a folder are read.")
@apply(written_part_options)
@json_option
def command(
    source: Path,
    destination: Path,
    dtype: str | None,
    loras: tuple[str, ...],
    variant: str | None,
    source_variant: str | None,
    as_json: bool,
) -> None:
    """Write the model SOURCE to DESTINATION: one file where the name ends in .safetensors, else a diffusers folder.

    SOURCE may also be the name of a model in a folder of STABLE_DIFFUSION_MODELS. Without --dtype and --lora every
    weight keeps its bits, those of --vae and --text-encoder, too. Nothing that exists is overwritten.
    """
    from ...convert import convert

    options = {**chosen(), "loras": loras, "variant": variant, "source_variant": source_variant}
    made = convert(named_model(source), destination, dtype=dtype, **options)
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        echo_json({"path": made.path, "layout": made.layout, "family": made.family})
    else:
        click.echo(str(made.path))
