"""One-step solvers of the probability-flow ODE dx/dsigma = (x - x0) / sigma, the same for DDPM and flow models.

Options shared by the first three (Karras et al. 2022, arXiv:2206.00364, algorithm 2): `s_churn` total extra noise,
applied where s_tmin <= sigma <= s_tmax and multiplied by `s_noise`; 0 makes the sampler deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ...types import Step
from .base import STEEP, Level, Run, derivative, forward, transfer
from .registry import Options, check_number, sampler


@sampler(order=1)
def euler(
    run: Run,
    x: Tensor,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Euler's method, order 1, one call a step (Karras et al. 2022, algorithm 2 without lines 9 to 11)."""
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for index, (begin, end) in run.intervals():
        x, begin = churn(run, x, begin)
        denoised = run.ask(x, begin)
        x = transfer(x, denoised, begin, end)
        yield run.step(index, x, denoised)


@sampler(order=2, calls=2)
def heun(
    run: Run,
    x: Tensor,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Heun's method, order 2, two calls a step; the step to sigma 0 is Euler's (Karras et al. 2022, algorithm 2)."""
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for index, (begin, end) in run.intervals():
        x, begin = churn(run, x, begin)
        denoised = run.ask(x, begin)
        x = heun_step(run, x, denoised, begin, end)
        yield run.step(index, x, denoised)


@sampler(order=2, calls=2, skips_last=True)
def dpm_2(
    run: Run,
    x: Tensor,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DPM-Solver-2, order 2, two calls a step: the slope at the geometric mean of the two sigmas.

    Lu et al. 2022 (arXiv:2206.00927), algorithm 1, written with sigma as Karras et al. 2022 do; as k-diffusion's.
    """
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for index, (begin, end) in run.intervals():
        x, begin = churn(run, x, begin)
        denoised = run.ask(x, begin)
        x = midpoint_step(run, x, denoised, begin, end)
        yield run.step(index, x, denoised)


@dataclass(frozen=True)
class Churn:
    """Extra noise before each step whose sigma lies in [s_tmin, s_tmax] (Karras et al. 2022, algorithm 2)."""

    s_churn: float
    s_tmin: float
    s_tmax: float
    s_noise: float

    def __call__(self, run: Run, x: Tensor, level: Level) -> tuple[Tensor, Level]:
        """State and level after raising sigma by gamma = min(s_churn / steps, sqrt(2) - 1), to sigma_max at most."""
        if self.s_churn == 0 or level.alpha == 0 or not self.s_tmin <= level.sigma <= self.s_tmax:
            return x, level
        gamma = min(self.s_churn / run.steps, math.sqrt(2) - 1)
        sigma = min(level.sigma * (1 + gamma), max(level.sigma, run.schedule.sigma_max))
        if sigma <= level.sigma:
            return x, level
        high = run.at_sigma(sigma)
        return forward(run, x, level, high, self.s_noise), high


def heun_step(run: Run, x: Tensor, denoised: Tensor, begin: Level, end: Level) -> Tensor:
    """Heun's step from `begin` to `end`: with the mean of the slopes at both; Euler's to sigma 0 and from noise."""
    if end.sigma == 0 or begin.sigma >= STEEP:
        return transfer(x, denoised, begin, end)
    slope = derivative(x, denoised, begin)
    ahead = x + slope * (end.sigma - begin.sigma)
    slope = (slope + derivative(ahead, run.ask(ahead, end), end)) * 0.5
    return x + slope * (end.sigma - begin.sigma)


def midpoint_step(run: Run, x: Tensor, denoised: Tensor, begin: Level, end: Level) -> Tensor:
    """DPM-Solver-2's step from `begin` to `end`; Euler's to sigma 0 and from noise."""
    if end.sigma == 0 or begin.sigma >= STEEP:
        return transfer(x, denoised, begin, end)
    middle = run.at_sigma(math.sqrt(begin.sigma * end.sigma))
    halfway = transfer(x, denoised, begin, middle)
    slope = derivative(halfway, run.ask(halfway, middle), middle)
    return x + slope * (end.sigma - begin.sigma)


# --- restarts ---------------------------------------------------------------------------------------------------------

LOW, HIGH = 0.1, 2.0
"""sigma / alpha between which the state is raised and brought down again."""
RHO = 7.0


def _check_restarts(options: Options) -> None:
    check_number("restarts", float(max(options["restarts"], 0)))


def _restarts(run: Run, options: Options) -> bool:
    return any(low.sigma < high.sigma for (_, low), (high, _) in pairwise(_walk(run, options["restarts"])))


@sampler(_check_restarts, order=2, calls=2, draws=_restarts)
def restart(run: Run, x: Tensor, *, s_noise: float = 1.0, restarts: int = -1) -> Iterator[Step]:
    """Heun's method with restarts (Xu et al. 2023, arXiv:2306.14878, algorithm 1), two calls a step.

    A stretch of low noise levels is walked more than once, from fresh noise each time.

    restarts  how often the stretch is walked again: 0 is `heun`; -1 is A1111's choice by the number of steps, none
              under 20, one of 9 steps from there, two of a quarter of the steps each from 36. The steps spent on
              restarts are taken from the walk down, whose levels keep the shape of `sigmas`.
    """
    walk = _walk(run, restarts)
    reached = walk[0][0]
    for index, (begin, end) in enumerate(walk):
        if begin.sigma > reached.sigma:
            x = forward(run, x, reached, begin, s_noise)
        denoised = run.ask(x, begin)
        x, reached = heun_step(run, x, denoised, begin, end), end
        yield Step(index=index, total=len(walk), sigma=begin.sigma, x=x, denoised=denoised)


def _walk(run: Run, restarts: int) -> list[tuple[Level, Level]]:
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
    stretch = [levels[high], *map(run.at_sigma, roots[1:-1].tolist()), levels[low]]
    return [*pairs[:low], *list(pairwise(stretch)) * times, *pairs[low:]]


def _coarser(run: Run, steps: int) -> list[Level]:
    """`steps` steps through levels of the same shape: sigma^(1/7) interpolated over their numbers, the ends kept."""
    sigmas = torch.tensor([level.sigma for level in run.levels], dtype=torch.float64)
    above = sigmas[sigmas > 0] ** (1 / RHO)
    count = steps if len(above) < len(sigmas) else steps + 1
    place = torch.linspace(0, len(above) - 1, count, dtype=torch.float64)
    low = place.floor().long().clamp(max=len(above) - 2)
    roots = above[low] + (place - low) * (above[low + 1] - above[low])
    inner = [run.at_sigma(sigma) for sigma in (roots**RHO).tolist()[1:-1]]
    last = run.levels[len(above) - 1]
    return [run.levels[0], *inner, last, *([run.levels[-1]] if last is not run.levels[-1] else [])]
