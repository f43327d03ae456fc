"""What the numbers depend on: processor, versions, and the rate at which the machine multiplies matrices."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path

import torch

PACKAGES = ("torch", "diffusers", "transformers", "openvino", "openvino-genai", "optimum-intel", "onnxruntime")
PACKAGES = (*PACKAGES, "stable-diffusion-cpp-python", "stable-diffusion")


def machine() -> dict[str, object]:
    """Processor, cores, threads, memory, what it can do, and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    about = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in reversed(lines) if ":" in line}
    flags = [each for each in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")]
    return {
        "processor": about.get("model name") or platform.processor() or platform.machine(),
        "instructions": [each for each in flags if each in about.get("flags", "").split()],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(_memory() / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "busy": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def product_rates(side: int = 4096, repeats: int = 5) -> dict[str, float]:
    """Precision -> the best measured operations a second of a product of square matrices, by torch."""
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("int8", torch.int8)):
        if dtype == torch.int8:
            a, b = (torch.randint(-100, 100, (side, side), dtype=dtype) for _ in range(2))
            product = torch._int_mm
        else:
            a, b = (torch.randn(side, side, dtype=dtype) for _ in range(2))
            product = torch.mm
        product(a, b)
        best = min(_seconds(lambda product=product, a=a, b=b: product(a, b)) for _ in range(repeats))
        rates[name] = 2 * side**3 / best
    return rates


def _seconds(call: object) -> float:
    start = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - start
