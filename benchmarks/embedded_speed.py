"""How fast the built-in model paints, beside diffusers on a U-Net of the same size.

    python benchmarks/embedded_speed.py [--threads 2] [--json]

Warm: one picture of the model's own size in a process that has painted before, at default settings, and the same of its
few-step form. Cold: a new process from its start to the PNG, of both. The peer makes as many calls of as many rows of
diffusers' U-Net, with random weights, on a latent folded into as many channels, and its scheduler's steps; it neither
reads the prompt nor decodes, so its time is a lower bound. Both take turns, and medians are compared, so that other
work on the machine weighs on both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import stable_diffusion
from stable_diffusion.diffusion.samplers import solver
from stable_diffusion.embedded import fast_path
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.pipeline.models import EMBEDDED_FAST
from stable_diffusion.request.names import resolve_sampler

PROMPT = "a red apple"


@dataclass(frozen=True)
class Row:
    """Median seconds; `peer` and `ratio` (ours over the peer's) are None where there is no peer."""

    what: str
    seconds: float
    least: float
    peer: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.peer is None else self.seconds / self.peer


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(ours: Callable[[], object], theirs: Callable[[], object] | None, repeats: int) -> tuple[Any, Any]:
    """Seconds of each, measured one after the other; the first turn of both warms up and is not counted."""
    first, second = [], []
    for turn in range(repeats + 1):
        for call, times in ((ours, first), (theirs, second)):
            if call is not None:
                seconds = timed(call)
                times += [seconds] if turn else []
    return first, second


def diffusers_unet(config: UNetConfig) -> Any:
    """diffusers' U-Net of the same shape on latents folded as ours are, with random weights."""
    from diffusers import UNet2DConditionModel

    stages = config.down_stages()
    down = ["CrossAttnDownBlock2D" if stage.attends else "DownBlock2D" for stage in stages]
    vector: dict[str, Any] = {}
    if config.vector_dim is not None:
        vector = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": config.vector_dim}
    return UNet2DConditionModel(
        in_channels=config.in_channels * config.patch_size**2,
        out_channels=config.out_channels * config.patch_size**2,
        block_out_channels=config.channels,
        layers_per_block=config.blocks_per_stage,
        cross_attention_dim=config.context_dim,
        attention_head_dim=[stage.heads for stage in stages],  # diffusers' name for the number of heads
        use_linear_projection=config.linear_projection,
        norm_num_groups=config.groups,
        down_block_types=down,
        up_block_types=[name.replace("Down", "Up") for name in reversed(down)],
        **vector,
    ).eval()


def peer(config: UNetConfig, size: tuple[int, int], tokens: int, steps: int, calls: int, guided: bool) -> Any:
    """What the peer does for one picture: `steps` of its scheduler, `calls` calls of the U-Net in each."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    unet, scheduler = diffusers_unet(config), FlowMatchEulerDiscreteScheduler()
    rows, patch = 2 if guided else 1, config.patch_size
    shape = (1, config.in_channels * patch**2, *(side // patch for side in size))
    text = torch.randn(rows, tokens, config.context_dim)
    vector = None if config.vector_dim is None else torch.randn(rows, config.vector_dim)

    @torch.inference_mode()
    def paint() -> None:
        x = torch.randn(shape)
        scheduler.set_timesteps(steps)
        for timestep in scheduler.timesteps:
            for _ in range(calls):
                found = unet(x.expand(rows, -1, -1, -1), timestep, text, class_labels=vector).sample
            guess = found if rows == 1 else found[:1] + 3 * (found[1:] - found[:1])
            x = scheduler.step(guess, timestep, x).prev_sample

    ours = sum(parameter.numel() for parameter in _meta(config).parameters())
    theirs = sum(parameter.numel() for parameter in unet.parameters())
    assert abs(theirs / ours - 1) < 0.02, f"the peer has {theirs} parameters, ours {ours}"
    return paint


def _meta(config: UNetConfig) -> UNet:
    with torch.device("meta"):
        return UNet(config)


def warm(model: stable_diffusion.StableDiffusion, what: str, repeats: int) -> Row:
    """One picture at default settings, and the peer's way of making it."""
    defaults, network = model.defaults, model.parts.unet
    steps, guidance, calls = defaults.steps, defaults.guidance, solver(resolve_sampler(defaults.sampler).id).calls
    size = (defaults.height // model.factor, defaults.width // model.factor)
    theirs = None
    if isinstance(network, UNet) and model.parts.clip is not None:
        tokens = model.parts.clip.config.context_length
        theirs = peer(network.config, size, tokens, steps, calls, guidance != 1)
    ours, others = in_turns(lambda: stable_diffusion.generate_image(PROMPT, model=model, seed=0), theirs, repeats)
    named = f"{what}: {defaults.width}x{defaults.height}, {steps} steps, guidance {guidance:g}"
    return Row(named, statistics.median(ours), min(ours), statistics.median(others) if others else None)


def cold(model: str | None, threads: int | None, repeats: int) -> Row:
    """A new process from its start to the PNG."""
    environment = dict(os.environ) if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "stable_diffusion", PROMPT, "--seed", "0", "--no-preview", "--overwrite"]
        command += ["--out", str(Path(folder) / "apple.png"), *(["--model", model] if model else [])]
        seconds = [
            timed(lambda: subprocess.run(command, check=True, capture_output=True, env=environment))
            for _ in range(repeats)
        ]
    return Row(
        f"cold: a new process to the PNG, {model or 'default settings'}", statistics.median(seconds), min(seconds)
    )


def machine(model: stable_diffusion.StableDiffusion) -> dict[str, Any]:
    """What the numbers depend on."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text(encoding="utf-8").splitlines() if names.is_file() else []
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "model": f"{model.name} {model.hash}",
        "processor": processor or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "busy": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "device": f"{model.device} {model.dtype}".replace("torch.", ""),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model file; without one the built-in model and its few-step form")
    parser.add_argument("--threads", type=int, help="CPU threads (torch's own choice)")
    parser.add_argument("--repeats", type=int, default=7, help="of warm pictures")
    parser.add_argument("--cold-repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    model = stable_diffusion.load(given.model, device="cpu")
    about = machine(model)
    rows = [warm(model, "warm", given.repeats), cold(given.model, given.threads, given.cold_repeats)]
    if given.model is None and fast_path() is not None:
        fast = stable_diffusion.load(EMBEDDED_FAST, device="cpu")
        rows.insert(1, warm(fast, "warm, few steps", given.repeats))
        rows.append(cold(EMBEDDED_FAST, given.threads, given.cold_repeats))
    if given.json:
        print(json.dumps({**about, "rows": [{**asdict(row), "ratio": row.ratio} for row in rows]}, indent=1))
        return
    print("\n".join(f"{name:10} {value}" for name, value in about.items()), end="\n\n")
    print(f"{'':66}{'median':>9}{'least':>9}{'diffusers':>11}{'ratio':>7}")
    for row in rows:
        beside = "" if row.peer is None else f"{row.peer:9.2f} s{row.ratio:7.2f}"
        print(f"{row.what:66}{row.seconds:7.2f} s{row.least:7.2f} s{beside}")


if __name__ == "__main__":
    main()
