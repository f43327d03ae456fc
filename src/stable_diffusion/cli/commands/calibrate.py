"""`stable-diffusion calibrate`: how far a model in 8 bits is from itself, and which layers to keep out of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from ..command import Command, SectionOption
from ..format import echo_json, echo_table
from ..options import load_model, model_options

EXAMPLES = """
stable-diffusion calibrate --model v1-5-pruned.safetensors
stable-diffusion calibrate -m sd_xl_base.safetensors --steps 8 --prompt "a cat" --prompt "a house"
"""
OPTION: Any = {"cls": SectionOption, "section": "Options"}
SHOWN = 10


@click.command("calibrate", cls=Command, examples=EXAMPLES)
@model_options
@click.option("--prompt", "prompts", multiple=True, help="What to denoise; may be repeated.", **OPTION)
@click.option("--steps", type=click.IntRange(1, 1000), default=4, show_default=True, help="Steps a prompt.", **OPTION)
@click.option(
    "--keep", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Share of layers to keep.", **OPTION
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.", **OPTION)
def command(model: str | None, prompts: tuple[str, ...], steps: int, keep: float, as_json: bool) -> None:
    """Measure --dtype int8 on a model's own denoising, and keep the layers that lose most in full precision.

    Later runs with --dtype int8 use what was found.
    """
    from ...evaluation.int8 import PROMPTS, calibrate

    found = calibrate(load_model(model), prompts or PROMPTS, steps=steps, share=keep)
    if as_json:
        echo_json(asdict(found))
        return
    rows = [
        ("pictures", f"PSNR {found.pictures:.1f} dB, {found.pictures_all:.1f} with every layer in 8 bits"),
        ("latents", f"PSNR {found.latents:.1f} dB"),
        ("kept", f"{len(found.kept)} of {len(found.lost)} layers"),
    ]
    rows += [(f"  {name}", f"loses {100 * lost:.2f} %") for name, lost in list(found.lost.items())[:SHOWN]]
    echo_table(rows)
