"""`stable-diffusion outpaint`: a picture on a larger canvas, its margins generated."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ...errors import InvalidRequest
from ...request.request import COMMON
from ...request.sequences import MAX_SIDE
from ...request.settings import Noise, Prompting
from ..command import Command, Whole
from ..given import Given
from ..options import loading_options
from ..output import Output, output_options
from ..run import run_all
from ..served.client import server_option
from ..setting_options import named_setting, setting_option, setting_options

EXAMPLES = """
stable-diffusion outpaint apple.png "a red apple on a table" --all 32
stable-diffusion outpaint apple.png --left 64 --right 64 --mask-blur 4 --out wide.png
"""
PIXELS = Whole(0, MAX_SIDE)


@click.command("outpaint", cls=Command, examples=EXAMPLES)
@click.argument("picture", type=click.Path(path_type=Path))
@click.argument("prompt", required=False)
@click.option("--left", type=PIXELS, show_default="--all", help="Pixels to add.")
@click.option("--top", type=PIXELS, show_default="--all", help="Pixels to add.")
@click.option("--right", type=PIXELS, show_default="--all", help="Pixels to add.")
@click.option("--bottom", type=PIXELS, show_default="--all", help="Pixels to add.")
@click.option("--all", "every", type=PIXELS, default=0, show_default=True, help="Pixels to add on every side.")
@setting_option(named_setting("inpaint.blur"), "Options", help="Blend the new part into the old one.")
@setting_option(named_setting("inpaint.fill"), "Options", show_default="fill", help="What the new area starts as.")
@setting_option(named_setting("strength"), "Options", show_default="1", help="Denoising strength of the new area.")
@output_options("outputs/SEED-PROMPT.png")
@setting_options(COMMON, without=("image",))
@setting_options(Prompting.SECTION)
@setting_options(Noise.SECTION, "image_guidance", section=Noise.SECTION)
@loading_options
@server_option
def command(
    picture: Path,
    prompt: str | None,
    left: int | None,
    top: int | None,
    right: int | None,
    bottom: int | None,
    every: int,
    output: Output,
    **settings: Any,
) -> None:
    """Extend PICTURE: it stays as it is, bit for bit, and the margins show PROMPT.

    Without PROMPT it is the one written in PICTURE. Margins grow until both sides fit the model.
    """
    start = time.monotonic()
    margins = tuple(every if side is None else side for side in (left, top, right, bottom))
    if not any(margins):
        raise InvalidRequest("nothing is added on any side: give --all, --left, --top, --right or --bottom")
    given = Given.of(settings)
    if prompt is None:
        from ...request.metadata import read_metadata

        written = read_metadata(picture).request
        prompt = written.prompt
        given = given.over(negative_prompt=written.negative_prompt)
    run_all([given.request(prompt, image=picture, canvas={"outpaint": margins})], output, start)
