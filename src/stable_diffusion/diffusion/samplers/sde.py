"""Solvers of the reverse-time SDE in half log-SNR, DPM-Solver++ with noise.

`eta` scales the noise: 1 is the diffusion SDE, 0 the probability-flow ODE (then the sampler is deterministic);
`s_noise` is a factor on the noise that leaves the levels as they are. Meant for `BrownianNoise`, any noise source will
do. The step to sigma 0 returns x0. From pure noise of a flow (lambda = -inf) the first step is of order 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from ...errors import InvalidRequest, unknown_choice
from ...types import Denoiser, NoiseSource, Schedule, Step
from .base import Level, Run, ancestral, prepare, renoise, transfer


def dpmpp_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Iterator[Step]:
    """DPM-Solver++ SDE, single-step of order 2, two calls a step; `r` in (0, 1] places the inner level in lambda.

    The SDE form (Lu et al. 2022, arXiv:2211.01095, section 5) of algorithm 1 there, as in k-diffusion.
    """
    if not 0 < r <= 1:
        raise InvalidRequest(f"r {r}: expected a number above 0 and at most 1")
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _dpmpp_sde(run, x, eta, s_noise, r)


@torch.no_grad()
def _dpmpp_sde(run: Run, x: Tensor, eta: float, s_noise: float, r: float) -> Iterator[Step]:
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = used = run.ask(x, begin)
        if end.sigma > 0 and begin.alpha > 0:
            middle = run.at_ratio(begin.ratio ** (1 - r) * end.ratio**r)
            down, std = ancestral(run, begin, middle, eta)
            inner = renoise(run, transfer(x, denoised, begin, down), begin, down, middle, std * s_noise)
            weight = 1 / (2 * r)
            used = denoised * (1 - weight) + run.ask(inner, middle) * weight
        down, std = ancestral(run, begin, end, eta)
        x = renoise(run, transfer(x, used, begin, down), begin, down, end, std * s_noise)
        yield run.step(index, x, denoised)


def dpmpp_2m_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver: Literal["midpoint", "heun"] = "midpoint",
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M), order 2, one call a step (Lu et al. 2022, arXiv:2211.01095, section 5).

    `solver` is the form of the second-order term; midpoint at eta 0 is `dpmpp_2m`.
    """
    if solver not in ("midpoint", "heun"):
        raise unknown_choice("solver", solver, ["midpoint", "heun"])
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _dpmpp_2m_sde(run, x, eta, s_noise, solver)


@torch.no_grad()
def _dpmpp_2m_sde(run: Run, x: Tensor, eta: float, s_noise: float, solver: str) -> Iterator[Step]:
    before: Tensor | None = None
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        h = end.lam - begin.lam
        x = exponential_step(x, denoised, begin, end, eta)
        if before is not None and math.isfinite(h):
            change = (denoised - before) * (h / (begin.lam - run.levels[index - 1].lam))
            gain = phi_2(h * (1 + eta)) if solver == "heun" else -0.5 * math.expm1(-h * (1 + eta))
            x = x + change * (end.alpha * gain)
        x = _with_noise(run, x, begin, end, eta, s_noise)
        before = denoised
        yield run.step(index, x, denoised)


def dpmpp_3m_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """SDE-DPM-Solver++(3M), order 3 at eta 0, one call a step; k-diffusion's extension of the 2M solver.

    x0 is a parabola in lambda through the last three calls, integrated exactly (phi functions of exponential
    integrators, Lu et al. 2022, arXiv:2206.00927, appendix B). The second derivative is twice the second divided
    difference; k-diffusion's and diffusers' solvers leave the 2 out and so reach order 2.
    """
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _dpmpp_3m_sde(run, x, eta, s_noise)


@torch.no_grad()
def _dpmpp_3m_sde(run: Run, x: Tensor, eta: float, s_noise: float) -> Iterator[Step]:
    history: list[tuple[float, Tensor]] = []  # (lambda, x0), the latest first
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        h = end.lam - begin.lam
        x = exponential_step(x, denoised, begin, end, eta)
        history = [(lam, x0) for lam, x0 in [(begin.lam, denoised), *history[:2]] if math.isfinite(lam)]
        if len(history) > 1 and math.isfinite(h):
            first, second = _derivatives(history, h)
            x = x + first * (end.alpha * phi_2(h * (1 + eta)))
            if second is not None:
                x = x - second * (end.alpha * phi_3(h * (1 + eta)))
        x = _with_noise(run, x, begin, end, eta, s_noise)
        yield run.step(index, x, denoised)


def _derivatives(history: list[tuple[float, Tensor]], h: float) -> tuple[Tensor, Tensor | None]:
    """h x0' and h^2 x0'' at the latest point, from divided differences over two or three points."""
    (now, x0), (before, x1) = history[0], history[1]
    r0 = (now - before) / h
    slope = (x0 - x1) * (1 / r0)
    if len(history) == 2:
        return slope, None
    earlier, x2 = history[2]
    r1 = (before - earlier) / h
    bend = (slope - (x1 - x2) * (1 / r1)) * (1 / (r0 + r1))
    return slope + bend * r0, bend * 2


def exponential_step(x: Tensor, x0: Tensor, begin: Level, end: Level, eta: float) -> Tensor:
    """The exact mean of the SDE's step with x0 constant: (s'/s) exp(-eta h) x + a' (1 - exp(-(1 + eta) h)) x0."""
    if eta == 0 or end.sigma == 0:
        return transfer(x, x0, begin, end)
    fall = math.pow(end.ratio / begin.ratio, eta)  # exp(-eta h), 0 from pure noise
    return x * (end.sigma / begin.sigma * fall) + x0 * (end.alpha * (1 - end.ratio / begin.ratio * fall))


def _with_noise(run: Run, x: Tensor, begin: Level, end: Level, eta: float, s_noise: float) -> Tensor:
    """Add the SDE's noise of the step, std s' sqrt(1 - exp(-2 eta h))."""
    if end.sigma == 0 or eta * s_noise == 0:
        return x
    std = end.sigma * math.sqrt(1 - (end.ratio / begin.ratio) ** (2 * eta))
    return x + run.fresh(x, begin, end) * (std * s_noise)


def phi_2(h: float) -> float:
    """(exp(-h) - 1) / h + 1, h > 0."""
    return math.expm1(-h) / h + 1


def phi_3(h: float) -> float:
    """phi_2(h) / h - 1/2, h > 0."""
    return phi_2(h) / h - 0.5
