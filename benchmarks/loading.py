"""A Stable Diffusion 1.5 file of full size (fp16, random weights): to its first step, and the memory of a picture.

Each call is a process of its own, in which `scripts/load_full_size.py` measures from the call that loads; what a
process imports before is not counted. The first step is one at 64x64 pixels, so that loading is most of it.
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
SPACE = 4 * 2**30
OURS, THEIRS = "ours, load", "diffusers, from_single_file"


@functools.cache
def checkpoint() -> Path:
    """The file, written once and removed when the process ends; Absent where the disk has no room."""
    if shutil.disk_usage(tempfile.gettempdir()).free < SPACE:
        raise Absent("there is no room for a model of 2 GiB in the folder of temporary files")
    folder = tempfile.mkdtemp(prefix="loading-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "sd15.safetensors"
    run("write", path, "--dtype", "float16")
    return path


def run(action: str, path: Path, *more: str) -> dict[str, float]:
    """One action of the script in a new process: what it reports, empty for `write`."""
    command = [sys.executable, str(SCRIPT), action, str(path), "--family", "sd15", *more]
    ended = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    found: dict[str, float] = {} if action == "write" else json.loads(ended.stdout.splitlines()[-1])
    return found


def side(action: str, dtype: str, what: str, *more: str) -> Call:
    """Seconds to the first step, or GiB at the peak, as `what` says."""
    if action == "peer":
        installed("diffusers")
    path, unit = checkpoint(), "GiB" if what == "peak_gib" else "s"
    return lambda: Amount(run(action, path, "--dtype", dtype, *more)[what], unit)


def rows(quick: bool) -> Iterator[Row]:
    """load-DTYPE, memory-sd15."""
    if quick:
        return
    for dtype in ("float16", "bfloat16", "float32"):
        yield Row(
            f"load-{dtype}",
            f"An fp16 file of Stable Diffusion 1.5, loaded in {dtype}, to its first step",
            (
                Side(OURS, partial(side, "paint", dtype, "first_step")),
                Side(THEIRS, partial(side, "peer", dtype, "first_step")),
            ),
            goals=(Goal(OURS, THEIRS, 4.0),),
        )
    picture = ("--side", "512", "--guidance", "7.5")
    yield Row(
        "memory-sd15",
        "Stable Diffusion 1.5 at 512x512: the most memory of the process, in GiB",
        (
            Side(OURS, partial(side, "paint", "bfloat16", "peak_gib", *picture)),
            Side(THEIRS, partial(side, "peer", "bfloat16", "peak_gib", *picture)),
        ),
        repeats=1,
        warm=False,
        goals=(Goal(OURS, most=3.0),),
    )
