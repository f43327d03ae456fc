"""More multistep solvers with one call a step: IPNDM, DEIS, and the refined exponential solver."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...types import Denoiser, NoiseSource, Schedule, Step
from .base import Level, Run, ancestral, prepare, renoise, transfer
from .multistep import ADAMS_BASHFORTH, check_order
from .ode import derivative
from .quadrature import lagrange_weights
from .sde import phi_2


def ipndm(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    order: int = 4,
) -> Iterator[Step]:
    """Improved pseudo linear multistep (Zhang & Chen 2022, arXiv:2204.13902, section 3.3 and appendix B.2).

    Adams-Bashforth's weights for even steps on dx/dsigma, of rising order 1 to `order`: `plms` without its second
    call at the start. Order 2 on smooth levels, up to `order` where sigmas are evenly spaced. The step to sigma 0
    returns x0.    With weights for uneven steps (IPNDM_V) it is `lms`.
    """
    check_order(order, 4)
    return _ipndm(prepare(denoise, x, sigmas, schedule, noise), x, order)


@torch.no_grad()
def _ipndm(run: Run, x: Tensor, order: int) -> Iterator[Step]:
    slopes: list[Tensor] = []  # the latest first
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        slopes = [derivative(x, denoised, begin), *slopes[: order - 1]]
        if end.sigma == 0:
            x = transfer(x, denoised, begin, end)
        else:
            for slope, weight in zip(slopes, ADAMS_BASHFORTH[len(slopes)], strict=True):
                x = x + slope * (weight * (end.sigma - begin.sigma))
        yield run.step(index, x, denoised)


def deis(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    order: int = 3,
    lower_order_final: bool = False,
) -> Iterator[Step]:
    """DEIS, order 1 to 4 (Zhang & Chen 2022, arXiv:2204.13902, equations 14 and 15 in rho = sigma / alpha).

    d(x / alpha) / d rho is the noise, taken as a polynomial in log rho through the last calls and integrated exactly:
    the multistep form with noise prediction that diffusers calls logrho. `lower_order_final` lowers the order towards
    the last step. The step to sigma 0 returns x0; pure noise of a flow does not enter the history.
    """
    check_order(order, 4)
    return _deis(prepare(denoise, x, sigmas, schedule, noise), x, order, lower_order_final)


@torch.no_grad()
def _deis(run: Run, x: Tensor, order: int, lower_order_final: bool) -> Iterator[Step]:
    history: list[tuple[float, Tensor]] = []  # (log rho, noise), the latest first
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        if begin.alpha == 0 or end.sigma == 0:
            x = transfer(x, denoised, begin, end)
            yield run.step(index, x, denoised)
            continue
        eps = (x - denoised * begin.alpha) * (1 / begin.sigma)
        history = [(-begin.lam, eps), *history[: order - 1]]
        used = history[: min(order, run.steps - index)] if lower_order_final else history
        # over log rho the integrand of d rho carries one more factor rho
        weights = lagrange_weights([place for place, _ in used], -begin.lam, -end.lam, math.exp)
        x = x * (end.alpha / begin.alpha)
        for (_, value), weight in zip(used, weights, strict=True):
            x = x + value * (end.alpha * weight)
        yield run.step(index, x, denoised)


def res_multistep(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """Refined exponential solver, multistep of order 2 (Zhang et al. 2023, arXiv:2308.02157, section 4).

    x0 is a line in lambda through the last two calls, integrated exactly; at eta 0 it is `dpmpp_2m_sde` with the Heun
    form and without noise. eta > 0 adds ancestral noise. The first step and the step to sigma 0 are of order 1.
    """
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _res_multistep(run, x, eta, s_noise)


def res_multistep_ancestral(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """`res_multistep` with ancestral noise."""
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _res_multistep(run, x, eta, s_noise)


@torch.no_grad()
def _res_multistep(run: Run, x: Tensor, eta: float, s_noise: float) -> Iterator[Step]:
    before: Tensor | None = None
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        down, std = ancestral(run, begin, end, eta)
        fallen = transfer(x, denoised, begin, down)
        if before is not None:
            fallen = _bend(fallen, denoised - before, run.levels[index - 1], begin, down)
        x = renoise(run, fallen, begin, down, end, std * s_noise)
        before = denoised
        yield run.step(index, x, denoised)


def _bend(x: Tensor, change: Tensor, before: Level, begin: Level, end: Level) -> Tensor:
    """The second-order term of a step from `begin` to `end`, where x0 changed by `change` since `before`."""
    h = end.lam - begin.lam
    if end.sigma == 0 or h <= 0 or math.isinf(h):
        return x
    return x + change * (end.alpha * phi_2(h) * h / (begin.lam - before.lam))
