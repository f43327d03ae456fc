"""A whole picture of Stable Diffusion 1.5, 512x512, from prompt to pixels, at each one's defaults."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from .measure import Amount, Call
from .networks import autoencoders, dtype_of, engine, random, unets
from .rows import Absent, Goal, Row, Side
from .steps import diffusers as diffusers_step

THEIRS, STEPS = "diffusers, float32, 50 steps (its defaults)", 50
OURS, FAST = "ours, its defaults", "ours, speed fast"


@functools.cache
def model(dtype: str, quick: bool) -> Any:
    """Our Stable Diffusion 1.5 with random weights."""
    from stable_diffusion.diffusion.schedule import ddpm_schedule
    from stable_diffusion.latents import LatentFormat
    from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
    from stable_diffusion.pipeline.models import StableDiffusion
    from stable_diffusion.weights.checkpoints.families import FAMILIES
    from stable_diffusion.weights.parts import Parts, TokenizerSource

    unet, vae = unets("sd15", dtype, quick)[1], autoencoders(dtype, quick)[1]
    small = {"width": 64, "layers": 1, "heads": 1, "mlp_width": 64} if quick else {}
    clip = random(lambda: CLIPText(CLIPTextConfig(**small)), dtype)
    unet.conv_out.weight.mul_(0.01)  # noise that a random network predicts must not run away over the steps
    side, factor = (16, 2) if quick else (512, 8)
    parts = Parts(
        unet=unet, vae=vae, clip=clip, tokenizer=TokenizerSource(), schedule=ddpm_schedule(), prediction="eps",
        latents=LatentFormat(channels=4, downscale=factor, scale=0.18215), family="sd1",
        defaults=dataclasses.replace(FAMILIES["sd1"].defaults, width=side, height=side), dtype=dtype_of(dtype),
    )  # fmt: skip
    return StableDiffusion.from_parts(parts, name="random")


def ours(quick: bool, dtype: str, **settings: Any) -> Call:
    from stable_diffusion.errors import InvalidRequest
    from stable_diffusion.pipeline.generate import generate
    from stable_diffusion.request.request import Request

    try:
        request = Request("a red apple on a table", seed=1, **settings)
    except (InvalidRequest, TypeError) as error:
        raise Absent(f"there is no setting {', '.join(settings)}") from error
    ready, runs = model(dtype, quick), engine("auto")
    return lambda: list(generate(ready, request, engine=runs))


def diffusers(quick: bool) -> Call:
    """Two steps and the decoding are measured; the other 48 steps are counted as those two, since all are alike."""
    step, vae = diffusers_step("sd15", quick, "float32"), autoencoders("float32", quick)[0]
    latent = torch.randn(1, 4, 8 if quick else 64, 8 if quick else 64)

    def call() -> Amount:
        start = time.perf_counter()
        step(), step()
        middle = time.perf_counter()
        with torch.inference_mode():
            vae.decode(latent)
        return Amount((middle - start) / 2 * STEPS + time.perf_counter() - middle, "s")

    return call


def rows(quick: bool) -> Iterator[Row]:
    """sd15-picture."""
    yield Row(
        "sd15-picture",
        "A picture of Stable Diffusion 1.5, 512x512, from prompt to pixels",
        (
            Side(OURS, partial(ours, quick, "bfloat16")),
            Side(FAST, partial(ours, quick, "bfloat16", speed="fast")),
            Side("ours, speed fastest", partial(ours, quick, "bfloat16", speed="fastest")),
            Side(THEIRS, partial(diffusers, quick)),
        ),
        repeats=1,
        warm=False,
        goals=(Goal(OURS, THEIRS, 7.0), Goal(FAST, THEIRS, 12.0)),
    )
