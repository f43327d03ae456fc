"""Samplers that at every step go below the next level and come back up with fresh noise, or start from x0 again.

`eta` is the share of the exact posterior's noise (1 all, 0 none: then the sampler is deterministic), `s_noise` a factor
on the noise that leaves the levels as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...errors import InvalidRequest
from ...types import Step
from .base import Level, Run, ancestral, renoise, transfer
from .one_step import midpoint_step
from .registry import Options, sampler


@sampler(order=1)
def euler_ancestral(run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0) -> Iterator[Step]:
    """Euler's method with ancestral noise; eta 0 is `euler`.

    k-diffusion's sampler; with alpha = 1 it is the DDIM of Song et al. 2020 (arXiv:2010.02502), equations 12 and 16,
    and at eta 1 DDPM. Flow models: the same posterior, written with sigma / alpha.
    """
    return _first_order(run, x, eta, s_noise)


@sampler(order=1)
def ddim(run: Run, x: Tensor, *, eta: float = 0.0, s_noise: float = 1.0) -> Iterator[Step]:
    """DDIM, order 1 (Song et al. 2020, arXiv:2010.02502, equations 12 and 16): deterministic at eta 0, DDPM at eta 1.

    It ends where `sigmas` ends: at 0, or at the first trained level as CompVis and `set_alpha_to_one=False` do.
    """
    return _first_order(run, x, eta, s_noise)


@sampler(order=1)
def ddpm(run: Run, x: Tensor, *, s_noise: float = 1.0) -> Iterator[Step]:
    """Ancestral sampling from the exact posterior q(x_end | x_begin, x0) (Ho et al. 2020, arXiv:2006.11239, equations 6
    and 7, the smaller of the two variances), over any subset of levels."""
    return _first_order(run, x, 1.0, s_noise)


@sampler(order=1, paired=True)
def euler_cfg_pp(run: Run, x: Tensor) -> Iterator[Step]:
    """CFG++: the guided estimate says where the picture is, the unguided one where the noise is; one call a step.

    Chung et al. 2024 (arXiv:2406.08070), algorithm 2. Guidance there is an interpolation, so that scales around 1 are
    what 7 is to ordinary guidance. A denoiser whose estimate is the same without guidance makes it `euler`.
    """
    return _first_order(run, x, 0.0, 1.0, cfg_pp=True)


@sampler(order=1, paired=True)
def euler_ancestral_cfg_pp(run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0) -> Iterator[Step]:
    """`euler_cfg_pp` with ancestral noise; eta 0 is without."""
    return _first_order(run, x, eta, s_noise, cfg_pp=True)


@sampler(order=1, paired=True, unit=12.5)
def ddim_cfg_pp(run: Run, x: Tensor, *, eta: float = 0.0, s_noise: float = 1.0) -> Iterator[Step]:
    """DDIM with CFG++, as in the paper; deterministic at eta 0."""
    return _first_order(run, x, eta, s_noise, cfg_pp=True)


def _first_order(run: Run, x: Tensor, eta: float, s_noise: float, *, cfg_pp: bool = False) -> Iterator[Step]:
    """Down with x0 held constant and up with noise. CFG++ takes the noise, (x - a x0) / s, from the unguided x0."""
    for index, (begin, end) in run.intervals():
        denoised, unguided = run.estimate(x, begin)
        down, std = ancestral(run, begin, end, eta)
        if cfg_pp:
            x = transfer(x, unguided, begin, down) + (denoised - unguided) * down.alpha
        else:
            x = transfer(x, denoised, begin, down)
        x = renoise(run, x, begin, down, end, std * s_noise)
        yield run.step(index, x, denoised)


@sampler(order=2, calls=2, skips_last=True)
def dpm_2_ancestral(run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0) -> Iterator[Step]:
    """DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927, algorithm 1) down, ancestral noise up; eta 0 is `dpm_2`."""
    for index, (begin, end) in run.intervals():
        denoised = run.ask(x, begin)
        down, std = ancestral(run, begin, end, eta)
        x = renoise(run, midpoint_step(run, x, denoised, begin, down), begin, down, end, std * s_noise)
        yield run.step(index, x, denoised)


@sampler(order=2, calls=2)
def dpmpp_2s_ancestral(run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0) -> Iterator[Step]:
    """DPM-Solver++(2S) down (Lu et al. 2022, arXiv:2211.01095, algorithm 1 with r = 1/2), ancestral noise up.

    Order 2 at eta 0; two calls a step. From pure noise of a flow (lambda = -inf) the first step is of order 1.
    """
    for index, (begin, end) in run.intervals():
        denoised = used = run.ask(x, begin)
        down, std = ancestral(run, begin, end, eta)
        if down.sigma > 0 and begin.alpha > 0:
            middle = run.at_ratio(math.sqrt(begin.ratio * down.ratio))
            used = run.ask(transfer(x, denoised, begin, middle), middle)
        x = renoise(run, transfer(x, used, begin, down), begin, down, end, std * s_noise)
        yield run.step(index, x, denoised)


# --- distilled models, whose x0 is already a picture after one call: consistency models and their kin -----------------


def _several_steps(run: Run, options: Options) -> bool:
    return run.steps > 1


@sampler(order=1, draws=_several_steps)
def lcm(run: Run, x: Tensor, *, s_noise: float = 1.0) -> Iterator[Step]:
    """Multistep consistency sampling: take x0, noise it to the next level (Luo et al. 2023, arXiv:2310.04378,
    algorithm 3; Song et al. 2023, arXiv:2303.01469, algorithm 1)."""
    for index, (begin, end) in run.intervals():
        denoised = run.ask(x, begin)
        x = denoised * end.alpha
        if end.sigma * s_noise > 0:
            x = x + run.fresh(x, begin, end) * (end.sigma * s_noise)
        yield run.step(index, x, denoised)


def _check_share(options: Options) -> None:
    if not 0 <= options["eta"] <= 1:
        raise InvalidRequest(f"eta {options['eta']}: expected a number from 0 to 1")


@sampler(_check_share, order=1, draws=_several_steps)
def tcd(run: Run, x: Tensor, *, eta: float = 0.3, s_noise: float = 1.0) -> Iterator[Step]:
    """Trajectory consistency: DDIM to timestep floor((1 - eta) t'), then noise up to t' (Zheng et al. 2024,
    arXiv:2402.19159, algorithm 4, strategic stochastic sampling; their gamma is `eta`).

    eta in [0, 1]: 0 is deterministic (DDIM), 1 nearly `lcm`.
    """
    for index, (begin, end) in run.intervals():
        denoised = run.ask(x, begin)
        down, std = _below(run, end, eta)
        x = renoise(run, transfer(x, denoised, begin, down), begin, down, end, std * s_noise)
        yield run.step(index, x, denoised)


def _below(run: Run, end: Level, eta: float) -> tuple[Level, float]:
    """The level of timestep floor((1 - eta) t_end), and the std of the noise that leads back up to `end`."""
    if end.sigma == 0 or eta == 0:
        return end, 0.0
    timestep = run.schedule.timestep(torch.tensor(end.sigma, dtype=torch.float64))
    down = run.at_sigma(float(run.schedule.sigma(((1 - eta) * timestep).floor())))
    if down.sigma >= end.sigma:  # below the first trained level there is nowhere to fall
        return end, 0.0
    keep = end.alpha / down.alpha
    return down, math.sqrt(end.sigma**2 - (keep * down.sigma) ** 2)
