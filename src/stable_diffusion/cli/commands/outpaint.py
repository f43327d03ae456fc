"""`stable-diffusion outpaint`: a picture on a larger canvas, its margins painted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ...errors import InvalidRequest
from ..command import Command, Number
from ..options import MAX_COUNT, MAX_SIDE, given, json_option, model_options, out_options, seed_option, step_options
from ..task_options import FILLS, noise_options, prompt_options
from .generate import paint_all

EXAMPLES = """
stable-diffusion outpaint apple.png "a red apple on a table" --all 32
stable-diffusion outpaint apple.png --left 64 --right 64 --mask-blur 4 --out wide.png
"""
PIXELS = click.IntRange(0, MAX_SIDE)


@click.command("outpaint", cls=Command, examples=EXAMPLES)
@click.argument("picture", type=click.Path(path_type=Path))
@click.argument("prompt", required=False)
@click.option("--left", type=PIXELS, show_default="--all", help="Pixels to add.")
@click.option("--top", type=PIXELS, show_default="--all", help="Pixels to add.")
@click.option("--right", type=PIXELS, show_default="--all", help="Pixels to add.")
@click.option("--bottom", type=PIXELS, show_default="--all", help="Pixels to add.")
@click.option("--all", "every", type=PIXELS, default=0, show_default=True, help="Pixels to add on every side.")
@click.option(
    "--mask-blur", "inpaint__blur", type=Number(min=0, max=256), help="Let the new part run into the old one."
)
@click.option("--fill", "inpaint__fill", type=click.Choice(FILLS), show_default="fill", help="What is there at first.")
@click.option("--strength", type=Number(min=0, max=1), show_default="1", help="How far that is painted anew.")
@step_options
@seed_option
@click.option(
    "-n", "--count", type=click.IntRange(1, MAX_COUNT), show_default="1", help="How many; picture k has seed + k."
)
@prompt_options
@noise_options
@model_options
@out_options("outputs/SEED-PROMPT.png")
@json_option
def command(
    picture: Path,
    prompt: str | None,
    left: int | None,
    top: int | None,
    right: int | None,
    bottom: int | None,
    every: int,
    device: str,
    dtype: str,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Paint around PICTURE: it stays as it is, bit for bit, and the margins are painted by PROMPT.

    Without PROMPT it is the one written in PICTURE. Margins grow until both sides fit the model.
    """
    start = time.monotonic()
    from ...request.metadata import read_metadata
    from ...request.request import Request

    margins = tuple(every if side is None else side for side in (left, top, right, bottom))
    if not any(margins):
        raise InvalidRequest("nothing is added on any side: give --all, --left, --top, --right or --bottom")
    chosen = given(settings)
    if prompt is None:
        written = read_metadata(picture).request
        prompt = written.prompt
        chosen.setdefault("negative_prompt", written.negative_prompt)
    chosen["canvas"] = {"outpaint": margins}
    request = Request(prompt, image=picture, **chosen)  # type: ignore[arg-type]  # opened there
    paint_all(
        [request], device=device, dtype=dtype, out=out, overwrite=overwrite, preview=False, as_json=as_json, start=start
    )
