"""Efficiency: seconds, memory and floating-point operations of one picture, and how much of the machine they use.

Operations are counted by `torch.utils.flop_counter` (matrix products, convolutions and attention; a multiplication with
its addition is two), so that they depend on the model alone and not on the machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..again import Repainted
from ..bench import Bench
from ..report import Efficiency
from .diversity import PROMPTS

Shape = Sequence[int]
SIDE = 2048


def measure(bench: Bench, restarted: Repainted | None) -> Efficiency:
    """Memory and loading time are those of `restarted`, a process that did nothing else; None where there was none."""
    model, seed, painter = bench.model, bench.plan.seed, bench.painter
    seconds = []
    for turn in range(bench.plan.timed + 1):  # the first warms up
        painter.report("timing", turn, bench.plan.timed + 1)
        start = time.perf_counter()
        painter.repaint("timing", PROMPTS[0], seed + turn)
        seconds.append(time.perf_counter() - start)
    size = (model.defaults.height // model.factor, model.defaults.width // model.factor)
    latent = torch.zeros(1, model.parts.latents.channels, *size, device=model.device)
    flops = count_flops(lambda: painter.repaint("counting operations", PROMPTS[0], seed))
    peak, typical = peak_flops(model.device, model.dtype), statistics.median(seconds[1:] or seconds)
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
    attention = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with FlopCounterMode(display=False, custom_mapping=attention) as counter, torch.no_grad():
        work()
    return int(counter.get_total_flops())


def _attention_flops(query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
    """Of the one attention that torch's counter leaves out, the CPU's: query [B,h,T,d], key and value [B,h,S,d]."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])


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
