"""Solvers of the probability-flow ODE that remember earlier calls: high order at one call a step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from ...errors import InvalidRequest, unknown_choice
from ...types import Denoiser, NoiseSource, Schedule, Step
from .base import Level, Run, prepare, transfer
from .ode import derivative
from .quadrature import lagrange


def lms(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    order: int = 4,
) -> Iterator[Step]:
    """Linear multistep in sigma, order 1 to 4: dx/dsigma as a polynomial through the last calls, integrated exactly.

    Adams-Bashforth for uneven steps (Hairer, Norsett & Wanner 1993, section III.5), as in k-diffusion; the step to
    sigma 0 returns x0.
    """
    check_order(order, 4)
    return _lms(prepare(denoise, x, sigmas, schedule, noise), x, order)


@torch.no_grad()
def _lms(run: Run, x: Tensor, order: int) -> Iterator[Step]:
    slopes: list[Tensor] = []  # the latest first
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
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


def plms(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
) -> Iterator[Step]:
    """Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778, equations 9, 12 and 13) as CompVis's PLMS and
    diffusers' PNDM with `skip_prk_steps`: n + 1 calls for n steps.

    dx/dsigma is averaged with the weights of Adams-Bashforth for even steps, whatever the steps, so the order is 2 in
    general and higher where sigmas are evenly spaced. The first step calls twice (Heun); its second call is not kept.
    """
    return _plms(prepare(denoise, x, sigmas, schedule, noise), x)


ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


@torch.no_grad()
def _plms(run: Run, x: Tensor) -> Iterator[Step]:
    slopes: list[Tensor] = []  # the latest first
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        slopes = [derivative(x, denoised, begin), *slopes[:3]]
        terms = [slope * weight for slope, weight in zip(slopes, ADAMS_BASHFORTH[len(slopes)], strict=True)]
        slope = terms[0]
        for term in terms[1:]:
            slope = slope + term
        if index == 0 and end.sigma > 0:
            ahead = x + slope * (end.sigma - begin.sigma)
            slope = (slope + derivative(ahead, run.ask(ahead, end), end)) * 0.5
        x = x + slope * (end.sigma - begin.sigma)
        yield run.step(index, x, denoised)


def dpmpp_2m(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M), order 2, one call a step (Lu et al. 2022, arXiv:2211.01095, algorithm 2).

    The first step and the step to sigma 0 are of order 1.
    """
    return _dpmpp_2m(prepare(denoise, x, sigmas, schedule, noise), x)


@torch.no_grad()
def _dpmpp_2m(run: Run, x: Tensor) -> Iterator[Step]:
    before: Tensor | None = None
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = used = run.ask(x, begin)
        if before is not None and end.sigma > 0:
            weight = (end.lam - begin.lam) / (2 * (begin.lam - run.levels[index - 1].lam))
            used = denoised * (1 + weight) - before * weight
        x = transfer(x, used, begin, end)
        before = denoised
        yield run.step(index, x, denoised)


def uni_pc(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    order: int = 2,
    variant: Literal["bh1", "bh2"] = "bh2",
    lower_order_final: bool = True,
) -> Iterator[Step]:
    """UniPC, data prediction, order 1 to 3, one call a step (Zhao et al. 2023, arXiv:2302.04867, algorithms 5 to 8).

    Each call both corrects the step that led to it (UniC, order + 1) and predicts the next (UniP). `variant` is the
    choice of B(h): bh1 is h, bh2 is exp(h) - 1. `lower_order_final` lowers the order towards the last step, as the
    authors do for few steps. Levels with alpha = 0 (pure noise of a flow) do not enter the history.
    """
    check_order(order, 3)
    if variant not in ("bh1", "bh2"):
        raise unknown_choice("variant", variant, ["bh1", "bh2"])
    return _uni_pc(prepare(denoise, x, sigmas, schedule, noise), x, order, variant, lower_order_final)


@torch.no_grad()
def _uni_pc(run: Run, x: Tensor, order: int, variant: str, lower_order_final: bool) -> Iterator[Step]:
    history: list[tuple[Level, Tensor]] = []  # (level, x0), the latest first
    start = x  # the state from which the last step set out
    used = 0  # order of that step
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
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
    for change, weight in zip(changes, _unified_weights(rates, h, variant), strict=True):
        x = x + change * (end.alpha * weight)
    return x


def _unified_weights(rates: list[float], h: float, variant: str) -> list[float]:
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


def check_order(order: int, highest: int) -> None:
    """InvalidRequest where `order` is not one of 1 to `highest`."""
    if order not in range(1, highest + 1):
        raise InvalidRequest(f"order {order!r}: expected a whole number from 1 to {highest}")
