"""One-step solvers of the probability-flow ODE dx/dsigma = (x - x0) / sigma, the same for DDPM and flow models.

Options shared by all (Karras et al. 2022, arXiv:2206.00364, algorithm 2): `s_churn` total extra noise, applied where
s_tmin <= sigma <= s_tmax and multiplied by `s_noise`; 0 makes the sampler deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...types import Denoiser, NoiseSource, Schedule, Step
from .base import Churn, Level, Run, prepare, transfer


def euler(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Euler's method, order 1, one call a step (Karras et al. 2022, algorithm 2 without lines 9 to 11)."""
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=churn.stochastic, **vars(churn))
    return _euler(run, x, churn)


@torch.no_grad()
def _euler(run: Run, x: Tensor, churn: Churn) -> Iterator[Step]:
    for index in range(run.steps):
        x, level = churn.apply(run, x, run.levels[index])
        denoised = run.ask(x, level)
        x = transfer(x, denoised, level, run.levels[index + 1])
        yield run.step(index, x, denoised)


def heun(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Heun's method, order 2, two calls a step; the step to sigma 0 is Euler's (Karras et al. 2022, algorithm 2)."""
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=churn.stochastic, **vars(churn))
    return _heun(run, x, churn)


@torch.no_grad()
def _heun(run: Run, x: Tensor, churn: Churn) -> Iterator[Step]:
    for index in range(run.steps):
        end = run.levels[index + 1]
        x, level = churn.apply(run, x, run.levels[index])
        denoised = run.ask(x, level)
        if end.sigma == 0:
            x = transfer(x, denoised, level, end)
        else:
            slope = derivative(x, denoised, level)
            ahead = x + slope * (end.sigma - level.sigma)
            slope = (slope + derivative(ahead, run.ask(ahead, end), end)) * 0.5
            x = x + slope * (end.sigma - level.sigma)
        yield run.step(index, x, denoised)


def dpm_2(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DPM-Solver-2, order 2, two calls a step: the slope at the geometric mean of the two sigmas.

    Lu et al. 2022 (arXiv:2206.00927), algorithm 1, written with sigma as Karras et al. 2022 do; as k-diffusion's.
    """
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=churn.stochastic, **vars(churn))
    return _dpm_2(run, x, churn)


@torch.no_grad()
def _dpm_2(run: Run, x: Tensor, churn: Churn) -> Iterator[Step]:
    for index in range(run.steps):
        x, level = churn.apply(run, x, run.levels[index])
        denoised = run.ask(x, level)
        x = midpoint_step(run, x, denoised, level, run.levels[index + 1])
        yield run.step(index, x, denoised)


def midpoint_step(run: Run, x: Tensor, denoised: Tensor, begin: Level, end: Level) -> Tensor:
    """DPM-Solver-2's step from `begin` to `end`; Euler's where `end` is sigma 0."""
    if end.sigma == 0:
        return transfer(x, denoised, begin, end)
    sigma = math.sqrt(begin.sigma * end.sigma)
    middle = Level(sigma, float(run.schedule.alpha(torch.tensor(sigma, dtype=torch.float64))))
    halfway = transfer(x, denoised, begin, middle)
    slope = derivative(halfway, run.ask(halfway, middle), middle)
    return x + slope * (end.sigma - begin.sigma)


def derivative(x: Tensor, denoised: Tensor, level: Level) -> Tensor:
    """dx/dsigma = (x - x0) / sigma: the noise for alpha = 1, the velocity noise - x0 for a flow."""
    return (x - denoised) * (1 / level.sigma)
