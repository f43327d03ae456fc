"""Samplers that at every step go below the next level and come back up with fresh noise.

`eta` is the share of the exact posterior's noise (1 all, 0 none: then the sampler is deterministic), `s_noise` a factor
on the noise that leaves the levels as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...types import Denoiser, NoiseSource, Schedule, Step
from .base import Run, ancestral, prepare, renoise, transfer
from .ode import midpoint_step


def euler_ancestral(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Euler's method with ancestral noise; eta 0 is `euler`.

    k-diffusion's sampler; with alpha = 1 it is the DDIM of Song et al. 2020 (arXiv:2010.02502), equations 12 and 16,
    and at eta 1 DDPM. Flow models: the same posterior, written with sigma / alpha.
    """
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _first_order(run, x, eta, s_noise)


def ddim(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DDIM, order 1 (Song et al. 2020, arXiv:2010.02502, equations 12 and 16): deterministic at eta 0, DDPM at eta 1.

    It ends where `sigmas` ends: at 0, or at the first trained level as CompVis and `set_alpha_to_one=False` do.
    """
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _first_order(run, x, eta, s_noise)


def ddpm(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Ancestral sampling from the exact posterior q(x_end | x_begin, x0) (Ho et al. 2020, arXiv:2006.11239, equations 6
    and 7, the smaller of the two variances), over any subset of levels."""
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=s_noise > 0, s_noise=s_noise)
    return _first_order(run, x, 1.0, s_noise)


@torch.no_grad()
def _first_order(run: Run, x: Tensor, eta: float, s_noise: float) -> Iterator[Step]:
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        down, std = ancestral(run, begin, end, eta)
        x = renoise(run, transfer(x, denoised, begin, down), begin, down, end, std * s_noise)
        yield run.step(index, x, denoised)


def dpm_2_ancestral(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927, algorithm 1) down, ancestral noise up; eta 0 is `dpm_2`."""
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _dpm_2_ancestral(run, x, eta, s_noise)


@torch.no_grad()
def _dpm_2_ancestral(run: Run, x: Tensor, eta: float, s_noise: float) -> Iterator[Step]:
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        down, std = ancestral(run, begin, end, eta)
        x = renoise(run, midpoint_step(run, x, denoised, begin, down), begin, down, end, std * s_noise)
        yield run.step(index, x, denoised)


def dpmpp_2s_ancestral(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DPM-Solver++(2S) down (Lu et al. 2022, arXiv:2211.01095, algorithm 1 with r = 1/2), ancestral noise up.

    Order 2 at eta 0; two calls a step. From pure noise of a flow (lambda = -inf) the first step is of order 1.
    """
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _dpmpp_2s_ancestral(run, x, eta, s_noise)


@torch.no_grad()
def _dpmpp_2s_ancestral(run: Run, x: Tensor, eta: float, s_noise: float) -> Iterator[Step]:
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = used = run.ask(x, begin)
        down, std = ancestral(run, begin, end, eta)
        if down.sigma > 0 and begin.alpha > 0:
            middle = run.at_ratio(math.sqrt(begin.ratio * down.ratio))
            used = run.ask(transfer(x, denoised, begin, middle), middle)
        x = renoise(run, transfer(x, used, begin, down), begin, down, end, std * s_noise)
        yield run.step(index, x, denoised)
