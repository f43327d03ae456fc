"""`stable-diffusion generate`: a sentence to pictures. The default command."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from ...request.request import COMMON, START, Request
from ...request.settings import Canvas, Hires, Inpaint, Noise, Prompting, Refiner
from ..command import Command, SectionOption
from ..control_options import control_options
from ..given import Given
from ..options import loading_options, preview_vae_option
from ..output import SECTION, Output, output_options
from ..run import run_all
from ..served.client import server_option
from ..setting_options import setting_options, size_option

EXAMPLES = """
stable-diffusion "a beautiful sunset over the ocean"
stable-diffusion "a red apple" --negative leaf --steps 30 --cfg 4 --seed 7 --out apple.png
stable-diffusion "a blue apple" --image apple.png --strength 0.6
stable-diffusion "a worm" --image apple.png --mask hole.png
stable-diffusion generate --like apple.png --seed 8
stable-diffusion "a [cat:dog:0.5] AND a {red|blue} hat" --count 4
stable-diffusion "a red apple" --background "#ffeecc"
stable-diffusion "a castle" --hires 2 --hires-strength 0.5
stable-diffusion "a castle" -m xl_base.safetensors --refiner xl_refiner.safetensors --refiner-switch 0.8
stable-diffusion "a meadow" --panorama --out sphere.jpg
stable-diffusion generate --prompts prompts.txt --out pictures
stable-diffusion "a lighthouse" --lora style.safetensors:0.8
stable-diffusion "a lighthouse <lora:style:0.8>" --lora-dir loras
stable-diffusion "a house" --control canny.safetensors --control-image house.png --control-preprocessor canny
echo "a cat" | stable-diffusion -
"""


FILE: Any = {"cls": SectionOption, "section": SECTION, "type": click.Path(path_type=Path)}


@click.command("generate", cls=Command, examples=EXAMPLES)
@click.argument("prompt", required=False)
@setting_options(COMMON)
@size_option
@output_options("outputs/SEED-PROMPT.png", preview=True, section=COMMON)
@setting_options(START)
@setting_options(Inpaint.SECTION)
@setting_options(Prompting.SECTION)
@setting_options(Canvas.SECTION)
@setting_options(Hires.SECTION)
@setting_options(Refiner.SECTION)
@control_options
@setting_options(Noise.SECTION)
@click.option("--like", **FILE, help="Take the settings that are written in this picture.")
@click.option("--prompts", **FILE, help="A file of prompts, one a line, each with its own options.")
@loading_options
@server_option
@preview_vae_option
def command(prompt: str | None, like: Path | None, prompts: Path | None, output: Output, **settings: Any) -> None:
    """Generate pictures from PROMPT. Paths go to stdout, one a line; seeds and progress go to stderr.

    PROMPT - reads it from standard input. Nothing that exists is overwritten unless asked for.
    """
    start = time.monotonic()
    run_all(_requests(prompt, like, prompts, Given.of(settings)), output, start)


def _requests(prompt: str | None, like: Path | None, prompts: Path | None, given: Given) -> list[Request]:
    """The one request of the command line, or that of a picture with changes, or one for each line of a file."""
    if prompts is not None:
        if prompt is not None or like is not None:
            raise click.UsageError("Give --prompts, or a prompt, or --like", click.get_current_context())
        return given.lines(prompts)
    if prompt == "-":
        prompt = sys.stdin.read()
    if like is not None:
        return [given.like(like, prompt)]
    if prompt is None:
        raise click.UsageError("Missing the prompt, a sentence in quotes", click.get_current_context())
    return [given.request(prompt)]
