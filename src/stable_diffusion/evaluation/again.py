"""Paint one order in a new process: what a restart gives, and how much memory a picture takes.

`repaint` starts `python -m stable_diffusion.evaluation.again`, hands it the order as JSON on standard input, and reads
the answer as JSON from standard output.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StableDiffusionError

TIMEOUT = 3600


@dataclass(frozen=True, kw_only=True)
class Repainted:
    """Pixels as they are saved, seconds to load and to paint, and the process's peak memory in bytes, where known."""

    pixels: bytes
    load_seconds: float
    seconds: float
    peak_memory: int | None


def repaint(order: Mapping[str, Any]) -> Repainted:
    """`order` holds model (path or name), device, dtype, threads, prompt, seed and settings. Raises
    StableDiffusionError where the new process fails."""
    done = subprocess.run(
        [sys.executable, "-m", "stable_diffusion.evaluation.again"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise StableDiffusionError(f"a second process could not paint the picture: {reason}")
    answer = json.loads(done.stdout)
    return Repainted(**{**answer, "pixels": base64.b64decode(answer["pixels"])})


def answer(order: Mapping[str, Any]) -> dict[str, Any]:
    """What the new process does: load, paint, measure."""
    import torch

    from ..pipeline.models import load
    from .painter import eight_bit, straight

    torch.set_num_threads(int(order["threads"]))
    start = time.perf_counter()
    model = load(order["model"], device=order["device"], dtype=order["dtype"])
    loaded = time.perf_counter()
    pictures = straight(model, order["prompt"], order["seed"], **order["settings"])
    return {
        "pixels": base64.b64encode(eight_bit(pictures)).decode(),
        "load_seconds": loaded - start,
        "seconds": time.perf_counter() - loaded,
        "peak_memory": peak_memory(),
    }


def peak_memory() -> int | None:
    """The most memory this process has held, in bytes: on a GPU what was allocated there, else resident memory.

    Linux tells it in /proc; what `getrusage` says there a process inherits from the one that started it.
    """
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


if __name__ == "__main__":
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
