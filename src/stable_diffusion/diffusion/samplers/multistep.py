"""Solvers of the probability-flow ODE that remember earlier calls: high order at one call a step."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from ...types import Step
from .base import STEEP, Level, Run, ancestral, derivative, renoise, transfer
from .quadrature import lagrange, lagrange_weights, phi_2
from .registry import one_of, order_up_to, sampler

ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
"""Weights of the last calls for even steps, the latest first, by their number."""


# --- in sigma ---------------------------------------------------------------------------------------------------------


@sampler(order_up_to(4), order=4)
def lms(run: Run, x: Tensor, *, order: int = 4) -> Iterator[Step]:
    """Linear multistep in sigma, order 1 to 4: dx/dsigma as a polynomial through the last calls, integrated exactly.

    Adams-Bashforth for uneven steps (Hairer, Norsett & Wanner 1993, section III.5), as in k-diffusion; the step to
    sigma 0 returns x0.
    """
    slopes: list[Tensor] = []  # the latest first
    for index, (begin, end) in run.intervals():
        denoised = run.ask(x, begin)
        slopes = [derivative(x, denoised, begin), *slopes[: order - 1]]
        if end.sigma == 0:
            x = transfer(x, denoised, begin, end)
        else:
            nodes = [run.levels[index - j].sigma for j in range(len(slopes))]
            for slope, weight in zip(slopes, adams_weights(nodes, begin.sigma, end.sigma), strict=True):
                x = x + slope * weight
        yield run.step(index, x, denoised)


def adams_weights(nodes: list[float], begin: float, end: float) -> list[float]:
    """Integrals over [begin, end] of the Lagrange polynomials on `nodes`; three Gauss points are exact to degree 5."""
    middle, half, reach = (begin + end) / 2, (end - begin) / 2, math.sqrt(0.6)
    points = ((middle - half * reach, 5 / 9), (middle, 8 / 9), (middle + half * reach, 5 / 9))
    return [half * sum(weight * lagrange(nodes, j, at) for at, weight in points) for j in range(len(nodes))]


@sampler(order=2)
def plms(run: Run, x: Tensor) -> Iterator[Step]:
    """Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778, equations 9, 12 and 13) as CompVis's PLMS and
    diffusers' PNDM with `skip_prk_steps`: n + 1 calls for n steps.

    dx/dsigma is averaged with the weights of Adams-Bashforth for even steps, whatever the steps, so the order is 2 in
    general and higher where sigmas are evenly spaced. The first step calls twice (Heun), but for zero terminal SNR; its
    second call is not kept.
    """
    slopes: list[Tensor] = []  # the latest first
    for index, (begin, end) in run.intervals():
        denoised = run.ask(x, begin)
        slopes = [derivative(x, denoised, begin), *slopes[:3]]
        terms = [slope * weight for slope, weight in zip(slopes, ADAMS_BASHFORTH[len(slopes)], strict=True)]
        slope = terms[0]
        for term in terms[1:]:
            slope = slope + term
        if index == 0 and end.sigma > 0 and begin.sigma < STEEP:
            ahead = x + slope * (end.sigma - begin.sigma)
            slope = (slope + derivative(ahead, run.ask(ahead, end), end)) * 0.5
        x = x + slope * (end.sigma - begin.sigma)
        yield run.step(index, x, denoised)


@sampler(order_up_to(4), order=2)
def ipndm(run: Run, x: Tensor, *, order: int = 4) -> Iterator[Step]:
    """Improved pseudo linear multistep (Zhang & Chen 2022, arXiv:2204.13902, section 3.3 and appendix B.2).

    Adams-Bashforth's weights for even steps on dx/dsigma, of rising order 1 to `order`: `plms` without its second
    call at the start. Order 2 on smooth levels, up to `order` where sigmas are evenly spaced. The step to sigma 0
    returns x0. With weights for uneven steps (IPNDM_V) it is `lms`.
    """
    slopes: list[Tensor] = []  # the latest first
    for index, (begin, end) in run.intervals():
        denoised = run.ask(x, begin)
        slopes = [derivative(x, denoised, begin), *slopes[: order - 1]]
        if end.sigma == 0:
            x = transfer(x, denoised, begin, end)
        else:
            for slope, weight in zip(slopes, ADAMS_BASHFORTH[len(slopes)], strict=True):
                x = x + slope * (weight * (end.sigma - begin.sigma))
        yield run.step(index, x, denoised)


# --- in half log-SNR --------------------------------------------------------------------------------------------------


@sampler(order=2)
def dpmpp_2m(run: Run, x: Tensor) -> Iterator[Step]:
    """DPM-Solver++(2M), order 2, one call a step (Lu et al. 2022, arXiv:2211.01095, algorithm 2).

    The first step and the step to sigma 0 are of order 1.
    """
    before: Tensor | None = None
    for index, (begin, end) in run.intervals():
        denoised = used = run.ask(x, begin)
        if before is not None and end.sigma > 0:
            weight = (end.lam - begin.lam) / (2 * (begin.lam - run.levels[index - 1].lam))
            used = denoised * (1 + weight) - before * weight
        x = transfer(x, used, begin, end)
        before = denoised
        yield run.step(index, x, denoised)


@sampler(order_up_to(4), order=3)
def deis(run: Run, x: Tensor, *, order: int = 3, lower_order_final: bool = False) -> Iterator[Step]:
    """DEIS, order 1 to 4 (Zhang & Chen 2022, arXiv:2204.13902, equations 14 and 15 in rho = sigma / alpha).

    d(x / alpha) / d rho is the noise, taken as a polynomial in log rho through the last calls and integrated exactly:
    the multistep form with noise prediction that diffusers calls logrho. `lower_order_final` lowers the order towards
    the last step. The step to sigma 0 returns x0; pure noise of a flow does not enter the history.
    """
    history: list[tuple[float, Tensor]] = []  # (log rho, noise), the latest first
    for index, (begin, end) in run.intervals():
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


@sampler(order=2)
def res_multistep(run: Run, x: Tensor, *, eta: float = 0.0, s_noise: float = 1.0) -> Iterator[Step]:
    """Refined exponential solver, multistep of order 2 (Zhang et al. 2023, arXiv:2308.02157, section 4).

    x0 is a line in lambda through the last two calls, integrated exactly; at eta 0 it is `dpmpp_2m_sde` with the Heun
    form and without noise. eta > 0 adds ancestral noise. The first step and the step to sigma 0 are of order 1.
    """
    return _refined(run, x, eta, s_noise)


@sampler(order=2)
def res_multistep_ancestral(run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0) -> Iterator[Step]:
    """`res_multistep` with ancestral noise.

    The line through two calls is measured by the fall of the step between them, from which the noise then led back up,
    as in ComfyUI's sampler: what the noise did to the estimate is no slope to follow.
    """
    return _refined(run, x, eta, s_noise)


def _refined(run: Run, x: Tensor, eta: float, s_noise: float) -> Iterator[Step]:
    before: Tensor | None = None
    fall = math.inf  # of the last step, in lambda: to the level below the noise that it added
    for index, (begin, end) in run.intervals():
        denoised = run.ask(x, begin)
        down, std = ancestral(run, begin, end, eta)
        fallen, h = transfer(x, denoised, begin, down), down.lam - begin.lam
        if before is not None and down.sigma > 0 and 0 < h < math.inf:
            fallen = fallen + (denoised - before) * (down.alpha * phi_2(h) * h / fall)
        x = renoise(run, fallen, begin, down, end, std * s_noise)
        before, fall = denoised, h
        yield run.step(index, x, denoised)


@sampler(order_up_to(3), one_of("variant", ("bh1", "bh2")), order=2)
def uni_pc(
    run: Run,
    x: Tensor,
    *,
    order: int = 2,
    variant: Literal["bh1", "bh2"] = "bh2",
    lower_order_final: bool = True,
) -> Iterator[Step]:
    """UniPC, data prediction, order 1 to 3, one call a step (Zhao et al. 2023, arXiv:2302.04867, algorithms 5 to 8).

    Each call both corrects the step that led to it (UniC, order + 1) and predicts the next (UniP). `variant` is the
    choice of B(h): bh1 is h, bh2 is exp(h) - 1. `lower_order_final` lowers the order towards the last step, as the
    authors do for few steps. Levels with alpha = 0 (pure noise of a flow) do not enter the history.
    """
    history: list[tuple[Level, Tensor]] = []  # (level, x0), the latest first
    start = x  # the state from which the last step set out
    used = 0  # order of that step
    for index, (begin, end) in run.intervals():
        denoised = run.ask(x, begin)
        if index > 0:
            x = _unified(start, history[:used], begin, variant, denoised)
        history = [(begin, denoised), *history[: order - 1]]
        if index > 0 and history[-1][0].alpha == 0:
            history.pop()
        used = min(order, len(history), run.steps - index if lower_order_final else order)
        start, x = x, _unified(x, history[:used], end, variant, None)
        yield run.step(index, x, denoised)


def _unified(x: Tensor, history: list[tuple[Level, Tensor]], end: Level, variant: str, at_end: Tensor | None) -> Tensor:
    """UniP (`at_end` None) or UniC from the latest level of `history` to `end`, given x0 at those levels and `end`."""
    begin, x0 = history[0]
    x = transfer(x, x0, begin, end)
    h = end.lam - begin.lam
    if math.isinf(h):  # from pure noise or to the picture: order 1, and the mean of both ends for the corrector
        return x if at_end is None else x + (at_end - x0) * (0.5 * end.alpha)
    rates = [(level.lam - begin.lam) / h for level, _ in history[1:]]
    changes = [(value - x0) * (1 / rate) for (_, value), rate in zip(history[1:], rates, strict=True)]
    if at_end is not None:
        rates, changes = [*rates, 1.0], [*changes, at_end - x0]
    for change, weight in zip(changes, _unified_weights(tuple(rates), h, variant), strict=True):
        x = x + change * (end.alpha * weight)
    return x


@functools.lru_cache(maxsize=512)  # every picture of a run visits the same levels
def _unified_weights(rates: tuple[float, ...], h: float, variant: str) -> list[float]:
    """-B(h) a_m, where a solves R a = b (equation 10 of the paper); of one unknown a is 1/2, as the authors set it."""
    scale = -h if variant == "bh1" else math.expm1(-h)
    if len(rates) < 2:
        return [-scale * 0.5 for _ in rates]
    b, phi, factorial = [], math.expm1(-h) / -h - 1, 1
    for k in range(1, len(rates) + 1):
        b.append(phi * factorial / scale)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    matrix = torch.tensor([[rate**k for rate in rates] for k in range(len(rates))], dtype=torch.float64)
    solved: list[float] = torch.linalg.solve(matrix, torch.tensor(b, dtype=torch.float64)).tolist()
    return [-scale * weight for weight in solved]
