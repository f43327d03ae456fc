"""Efficiency: seconds, memory and floating-point operations of one picture, and how much of the machine they use.

Operations are counted by `torch.utils.flop_counter` (matrix products, convolutions and attention; a multiplication with
its addition is two), so that they depend on the model alone and not on the machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from .again import Repainted
from .bench import Bench
from .diversity import PROMPTS
from .painter import straight
from .report import Efficiency

SIDE = 2048


def measure(bench: Bench, restarted: Repainted | None) -> Efficiency:
    """Memory and loading time are those of `restarted`, a process that did nothing else; None where there was none."""
    model, seed = bench.model, bench.plan.seed
    seconds = []
    for turn in range(bench.plan.timed + 1):  # the first warms up
        bench.painter.report("timing", turn, bench.plan.timed + 1)
        start = time.perf_counter()
        straight(model, PROMPTS[0], seed + turn)
        seconds.append(time.perf_counter() - start)
    size = (model.defaults.height // model.factor, model.defaults.width // model.factor)
    latent = torch.zeros(1, model.parts.latents.channels, *size, device=model.device)
    flops = count_flops(lambda: straight(model, PROMPTS[0], seed))
    peak, typical = peak_flops(model.device, model.dtype), statistics.median(seconds[1:] or seconds)
    if restarted is None:
        bench.skip("peak memory and loading time", "no other process could load the model")
    return Efficiency(
        seconds=typical,
        timed=bench.plan.timed,
        steps=model.defaults.steps,
        load_seconds=None if restarted is None else restarted.load_seconds,
        peak_memory=None if restarted is None else restarted.peak_memory,
        flops=flops,
        flops_text=count_flops(lambda: model.text_encoder.encode(PROMPTS[0])),
        flops_decoder=count_flops(lambda: model.image_decoder.straight(latent)),
        peak_flops=peak,
        share=flops / typical / peak,
    )


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of `work`."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return int(counter.get_total_flops())


def peak_flops(device: torch.device, dtype: torch.dtype, side: int = SIDE, seconds: float = 2.0) -> float:
    """Operations a second of the best of repeated products of side x side matrices."""
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best, begin = float("inf"), time.perf_counter()
    for turn in range(1000):
        start = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        if turn >= 2 and time.perf_counter() - begin > seconds:
            break
    return 2 * side**3 / best
