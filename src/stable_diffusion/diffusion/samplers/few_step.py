"""Samplers for distilled models whose x0 is already a picture after one call: consistency models and their kin."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...errors import InvalidRequest
from ...types import Denoiser, NoiseSource, Schedule, Step
from .base import Level, Run, prepare, renoise, transfer


def lcm(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Multistep consistency sampling: take x0, noise it to the next level (Luo et al. 2023, arXiv:2310.04378,
    algorithm 3; Song et al. 2023, arXiv:2303.01469, algorithm 1)."""
    stochastic = s_noise > 0 and len(sigmas) > 2
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=stochastic, s_noise=s_noise)
    return _lcm(run, x, s_noise)


@torch.no_grad()
def _lcm(run: Run, x: Tensor, s_noise: float) -> Iterator[Step]:
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        x = denoised * end.alpha
        if end.sigma * s_noise > 0:
            x = x + run.fresh(x, begin, end) * (end.sigma * s_noise)
        yield run.step(index, x, denoised)


def tcd(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 0.3,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Trajectory consistency: DDIM to timestep floor((1 - eta) t'), then noise up to t' (Zheng et al. 2024,
    arXiv:2402.19159, algorithm 4, strategic stochastic sampling; their gamma is `eta`).

    eta in [0, 1]: 0 is deterministic (DDIM), 1 nearly `lcm`.
    """
    if not 0 <= eta <= 1:
        raise InvalidRequest(f"eta {eta}: expected a number from 0 to 1")
    stochastic = eta * s_noise > 0 and len(sigmas) > 2
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=stochastic, s_noise=s_noise)
    return _tcd(run, x, eta, s_noise)


@torch.no_grad()
def _tcd(run: Run, x: Tensor, eta: float, s_noise: float) -> Iterator[Step]:
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        down, std = _fall(run, end, eta)
        x = renoise(run, transfer(x, denoised, begin, down), begin, down, end, std * s_noise)
        yield run.step(index, x, denoised)


def _fall(run: Run, end: Level, eta: float) -> tuple[Level, float]:
    """The level of timestep floor((1 - eta) t_end), and the std of the noise that leads back up to `end`."""
    if end.sigma == 0 or eta == 0:
        return end, 0.0
    timestep = run.schedule.timestep(torch.tensor(end.sigma, dtype=torch.float64))
    sigma = run.schedule.sigma(((1 - eta) * timestep).floor())
    down = Level(float(sigma), float(run.schedule.alpha(sigma)))
    if down.sigma >= end.sigma:  # below the first trained level there is nowhere to fall
        return end, 0.0
    keep = end.alpha / down.alpha
    return down, math.sqrt(end.sigma**2 - (keep * down.sigma) ** 2)
