"""The built-in model: a picture in a process that has made one before, and a new process from its start to the PNG."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .measure import Call
from .rows import Absent, Goal, Row, Side, installed

PROMPT = "a red apple"
WARM, FAST = "ours, default settings", "ours, embedded-fast"
ONE_CALL, TWO_CALLS = "ours, a frame at one call of the network", "ours, a frame at two calls"
COLD, IMPORT = "ours, a new process to the PNG", "diffusers, a new process that imports its pipeline"


def warm(name: str | None, dtype: str = "auto") -> Call:
    """One picture at default settings."""
    import stable_diffusion
    from stable_diffusion.errors import StableDiffusionError

    try:
        model = stable_diffusion.load(name, device="cpu", dtype=dtype)
    except StableDiffusionError as error:
        raise Absent(str(error)) from error
    return lambda: stable_diffusion.generate_image(PROMPT, model=model, seed=0)


def diffusers_warm(name: str | None) -> Call:
    """The calls that diffusers would make for the same picture, with a U-Net of the same shape."""
    installed("diffusers")
    import stable_diffusion
    from stable_diffusion.diffusion.samplers import solver
    from stable_diffusion.models.unet import UNet
    from stable_diffusion.request.names import resolve_sampler

    from .embedded_peer import peer

    model = stable_diffusion.load(name, device="cpu")
    network, defaults, clip = model.parts.unet, model.defaults, model.parts.clip
    if not isinstance(network, UNet) or clip is None:
        raise Absent("the built-in model is no U-Net")
    size = (defaults.height // model.factor, defaults.width // model.factor)
    calls, tokens = solver(resolve_sampler(defaults.sampler).id).calls, clip.config.context_length
    made: Call = peer(network.config, size, tokens, defaults.steps, calls, defaults.guidance != 1)
    return made


def cold(*more: str) -> Call:
    """A new process of the command line."""

    def call() -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "stable_diffusion", PROMPT, "--seed", "0", "--no-preview", "--overwrite"]
            command += ["--server", "off"]
            command += ["--out", str(Path(folder) / "apple.png"), *more]
            subprocess.run(command, check=True, capture_output=True)

    return call


def live(strength: float) -> Call:
    """One frame of 256 x 256 pixels, made by a `LivePainter` of embedded-fast."""
    from PIL import Image

    from stable_diffusion.live import LivePainter
    from stable_diffusion.request.request import Request
    from stable_diffusion.runner import LocalRunner

    frame = Image.effect_noise((256, 256), 80).convert("RGB")
    request = Request(PROMPT, model="embedded-fast", image=frame, strength=strength, seed=0)
    painter = LivePainter(LocalRunner(engine="torch"), request)
    return lambda: painter.paint(request)


def diffusers_import() -> Call:
    """A new process that imports the class of diffusers' pipeline, and does nothing more."""
    installed("diffusers")
    command = [sys.executable, "-c", "from diffusers import StableDiffusionPipeline"]

    def call() -> None:
        subprocess.run(command, check=True, capture_output=True)

    return call


def rows(quick: bool) -> Iterator[Row]:
    """embedded-warm, embedded-live, embedded-cold."""
    yield Row(
        "embedded-warm",
        "A picture of the built-in model in a process that has made one before",
        (
            Side(WARM, partial(warm, None)),
            Side(FAST, partial(warm, "embedded-fast")),
            Side("ours, bfloat16", partial(warm, None, "bfloat16")),
            Side("ours, embedded-fast, bfloat16", partial(warm, "embedded-fast", "bfloat16")),
            Side("diffusers, a U-Net of the same shape", partial(diffusers_warm, None)),
        ),
        repeats=2 if quick else 7,
        goals=(Goal(WARM, most=0.15), Goal(FAST, most=0.05)),
    )
    yield Row(
        "embedded-live",
        "A frame of 256x256 pixels made into a picture by embedded-fast, as in the live view",
        (Side(ONE_CALL, partial(live, 0.25)), Side(TWO_CALLS, partial(live, 0.5))),
        repeats=3 if quick else 25,
        goals=(Goal(ONE_CALL, most=round(1 / 12, 4)), Goal(TWO_CALLS, most=round(1 / 8, 4))),
    )
    yield Row(
        "embedded-cold",
        "The built-in model in a new process, to the PNG",
        (
            Side(COLD, cold),
            Side("ours, embedded-fast, a new process to the PNG", partial(cold, "--model", "embedded-fast")),
            Side(IMPORT, diffusers_import),
        ),
        repeats=1 if quick else 3,
        warm=not quick,
        goals=(Goal(COLD, most=1.5), Goal(COLD, IMPORT, 1.0)),
    )
