"""Files of full size (random weights): a Stable Diffusion 1.5 to its first step, and the most memory of a picture.

Each call is a process of its own, in which `scripts/load_full_size.py` measures from the call that loads; what a
process imports before is not counted. The first step is one at 64x64 pixels, so that loading is most of it. A first
load casts the weights; later ones map what was kept of it in the cache folder, which is one of the benchmark's own.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .measure import Amount, Call
from .rows import Absent, Goal, Row, Side, installed

SCRIPT = Path(__file__).parent.parent / "scripts" / "load_full_size.py"
SPACE = {"sd15": 6 * 2**30, "xl": 20 * 2**30}
"""Room on the disk for a file and what is kept of it."""
OURS, FIRST = "ours, its defaults", "ours, its defaults, first load"
THEIRS = "diffusers, from_single_file, float32 (its default)"
HALF = "diffusers, from_single_file, bfloat16"


@functools.cache
def checkpoint(family: str) -> Path:
    """The file in float16, written once and removed when the process ends; Absent where the disk has no room."""
    if shutil.disk_usage(tempfile.gettempdir()).free < SPACE[family]:
        raise Absent("there is no room for such a model in the folder of temporary files")
    folder = tempfile.mkdtemp(prefix="loading-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / f"{family}.safetensors"
    run("write", path, family, "--dtype", "float16")
    return path


def run(action: str, path: Path, family: str, *more: str, kept: bool = True) -> dict[str, float]:
    """One action of the script in a new process: what it reports, empty for `write` and `convert`. `kept` says whether
    what was cast is kept on the disk."""
    command = [sys.executable, str(SCRIPT), action, str(path), "--family", family, *more]
    own = {"STABLE_DIFFUSION_CACHE": str(path.parent / "cache"), "STABLE_DIFFUSION_CACHE_GB": "20" if kept else "0"}
    ended = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1", **own}
    )
    return {} if action in ("write", "convert") else json.loads(ended.stdout.splitlines()[-1])


def side(action: str, family: str, dtype: str, what: str, *more: str, kept: bool = True) -> Call:
    """Seconds to the first step, or GiB at the peak, as `what` says."""
    if action == "peer":
        installed("diffusers")
    path, unit = checkpoint(family), "GiB" if what == "peak_gib" else "s"
    if action == "paint" and kept:
        run("convert", path, family, "--dtype", "auto" if dtype == "int8-weights" else dtype)
    return lambda: Amount(run(action, path, family, "--dtype", dtype, *more, kept=kept)[what], unit)


def rows(quick: bool) -> Iterator[Row]:
    """load, load-float16, memory-sd15, memory-sdxl."""
    if quick:
        return
    yield Row(
        "load",
        "An fp16 file of Stable Diffusion 1.5, to its first step",
        (
            Side(OURS, partial(side, "paint", "sd15", "auto", "first_step")),
            Side(FIRST, partial(side, "paint", "sd15", "auto", "first_step", kept=False)),
            Side(THEIRS, partial(side, "peer", "sd15", "float32", "first_step")),
            Side(HALF, partial(side, "peer", "sd15", "bfloat16", "first_step")),
        ),
        goals=(Goal(OURS, THEIRS, 4.0),),
    )
    ours, theirs = "ours, float16", "diffusers, from_single_file, float16"
    yield Row(
        "load-float16",
        "The same without a cast",
        (
            Side(ours, partial(side, "paint", "sd15", "float16", "first_step")),
            Side(theirs, partial(side, "peer", "sd15", "float16", "first_step")),
        ),
    )
    for family, pixels, most in (("sd15", "512", 3.0), ("xl", "1024", 9.0)):
        picture = ("--side", pixels, "--guidance", "7.5")
        name = {"sd15": "sd15", "xl": "sdxl"}[family]
        yield Row(
            f"memory-{name}",
            f"A picture of {pixels}x{pixels}, one guided step: the most memory of the process, in GiB",
            (
                Side("ours, bfloat16", partial(side, "paint", family, "bfloat16", "peak_gib", *picture)),
                Side("ours, weights in 8 bits", partial(side, "paint", family, "int8-weights", "peak_gib", *picture)),
                Side("diffusers, bfloat16", partial(side, "peer", family, "bfloat16", "peak_gib", *picture)),
            ),
            repeats=1,
            warm=False,
            goals=(Goal("ours, bfloat16", most=most), Goal("ours, bfloat16", "diffusers, bfloat16", 1 / 0.7)),
        )
