"""Restart sampling: a stretch of low noise levels is walked more than once, from fresh noise each time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from ...types import Denoiser, NoiseSource, Schedule, Step
from .base import Level, Run, prepare, transfer
from .ode import derivative

LOW, HIGH = 0.1, 2.0
"""sigma / alpha between which the state is raised and brought down again."""
RHO = 7.0


def restart(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    s_noise: float = 1.0,
    restarts: int = -1,
) -> Iterator[Step]:
    """Heun's method with restarts (Xu et al. 2023, arXiv:2306.14878, algorithm 1), two calls a step.

    restarts  how often the stretch is walked again: 0 is `heun`; -1 is A1111's choice by the number of steps, none
              under 20, one of 9 steps from there, two of a quarter of the steps each from 36. The steps spent on
              restarts are taken from the walk down, whose levels keep the shape of `sigmas`.
    """
    run = prepare(denoise, x, sigmas, schedule, noise, s_noise=s_noise, restarts=float(max(restarts, 0)))
    pairs = _plan(run, restarts)
    raised = any(pairs[k][1].sigma < pairs[k + 1][0].sigma for k in range(len(pairs) - 1))
    if raised and s_noise > 0:  # known only now
        prepare(denoise, x, sigmas, schedule, noise, stochastic=True)
    return _restart(run, x, s_noise, pairs)


@torch.no_grad()
def _restart(run: Run, x: Tensor, s_noise: float, pairs: list[tuple[Level, Level]]) -> Iterator[Step]:
    reached = pairs[0][0]
    for index, (begin, end) in enumerate(pairs):
        if begin.sigma > reached.sigma:
            x = _raise(run, x, reached, begin, s_noise)
        denoised = run.ask(x, begin)
        if end.sigma == 0:
            x = transfer(x, denoised, begin, end)
        else:
            slope = derivative(x, denoised, begin)
            ahead = x + slope * (end.sigma - begin.sigma)
            slope = (slope + derivative(ahead, run.ask(ahead, end), end)) * 0.5
            x = x + slope * (end.sigma - begin.sigma)
        reached = end
        yield Step(index=index, total=len(pairs), sigma=begin.sigma, x=x, denoised=denoised)


def _raise(run: Run, x: Tensor, low: Level, high: Level, s_noise: float) -> Tensor:
    """The forward process from `low` to `high`."""
    keep = high.alpha / low.alpha
    x = x * keep
    std = (high.sigma**2 - (keep * low.sigma) ** 2) ** 0.5 * s_noise
    return x + run.fresh(x, high, low) * std if std > 0 else x


def _plan(run: Run, restarts: int) -> list[tuple[Level, Level]]:
    """(begin, end) of every step, the repeated ones included."""
    length, times = 9, restarts
    if restarts < 0:
        times = 0 if run.steps < 20 else 1 if run.steps < 36 else 2
    if run.steps >= 36:
        length = run.steps // 4
    if times == 0 or run.steps - length * times < 2:
        return list(pairwise(run.levels))
    levels = _coarser(run, run.steps - length * times)
    low, high = (min(range(len(levels)), key=lambda k: abs(levels[k].ratio - ratio)) for ratio in (LOW, HIGH))
    pairs = list(pairwise(levels))
    if high >= low or levels[low].sigma == 0:
        return list(pairwise(run.levels))
    roots = torch.linspace(levels[high].sigma ** (1 / RHO), levels[low].sigma ** (1 / RHO), length + 1).double() ** RHO
    stretch = [levels[high], *(_level(run, sigma) for sigma in roots[1:-1].tolist()), levels[low]]
    again = list(pairwise(stretch)) * times
    return [*pairs[:low], *again, *pairs[low:]]


def _coarser(run: Run, steps: int) -> list[Level]:
    """`steps` steps through levels of the same shape: sigma^(1/7) interpolated over their numbers, the ends kept."""
    sigmas = torch.tensor([level.sigma for level in run.levels], dtype=torch.float64)
    above = sigmas[sigmas > 0] ** (1 / RHO)
    count = steps if len(above) < len(sigmas) else steps + 1
    place = torch.linspace(0, len(above) - 1, count, dtype=torch.float64)
    low = place.floor().long().clamp(max=len(above) - 2)
    roots = above[low] + (place - low) * (above[low + 1] - above[low])
    inner = [_level(run, sigma) for sigma in (roots**RHO).tolist()[1:-1]]
    last = run.levels[len(above) - 1]
    return [run.levels[0], *inner, last, *([run.levels[-1]] if last is not run.levels[-1] else [])]


def _level(run: Run, sigma: float) -> Level:
    return Level(sigma, float(run.schedule.alpha(torch.tensor(sigma, dtype=torch.float64))))
