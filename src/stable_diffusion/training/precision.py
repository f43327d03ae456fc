"""Whether this machine computes faster in bfloat16 than in float32.

Processors without bfloat16 instructions (before AVX-512 BF16, AMX or Arm's BF16) emulate it, and matrix products are
then tens of times slower than in float32. No public flag of torch tells, so it is measured, once per process.
"""

from __future__ import annotations

import functools
import time

import torch

SIDE, TRIES = 384, 7


@functools.cache
def fast_bfloat16(device: str) -> bool:
    """True where a matrix product in bfloat16 takes no longer than in float32. device: "cpu", "cuda", ..."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    return product_seconds(torch.bfloat16) <= product_seconds(torch.float32)


def product_seconds(dtype: torch.dtype) -> float:
    """Least wall time of a few products of 384x384 matrices on the CPU (the first, which sets up, is not counted)."""
    matrix = torch.ones(SIDE, SIDE, dtype=dtype)
    times = []
    for _ in range(TRIES + 1):
        start = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - start)
    return min(times[1:])
