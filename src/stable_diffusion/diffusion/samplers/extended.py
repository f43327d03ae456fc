"""Solvers of the reverse-time SDE with a free choice of noise: ER-SDE and SA-Solver. One call a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from ...errors import unknown_choice
from ...types import Denoiser, NoiseSource, Schedule, Step
from .base import Level, Run, prepare, transfer
from .multistep import check_order
from .quadrature import integral, lagrange_weights

Form = Literal["er", "sde", "ode"]


def er_sde(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    s_noise: float = 1.0,
    order: int = 3,
    form: Form = "er",
) -> Iterator[Step]:
    """Extended reverse-time SDE solver, order 1 to 3 (Cui et al. 2023, arXiv:2309.06169, algorithms 1 to 3).

    With r = sigma / alpha, a step keeps phi(r') / phi(r) of the state and adds the noise that this leaves out. `form`
    is phi: "er" r (exp(r^0.3) + 10), the paper's best; "sde" r^2, the diffusion SDE; "ode" r, without noise.
    """
    check_order(order, 3)
    if form not in _SCALES:
        raise unknown_choice("form", form, _SCALES)
    stochastic = form != "ode" and s_noise > 0
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=stochastic, s_noise=s_noise)
    return _er_sde(run, x, s_noise, order, form)


def _er_scale(ratio: float) -> float:
    return ratio * (math.exp(min(ratio**0.3, 600.0)) + 10) if ratio < math.inf else math.inf


_SCALES: dict[str, Callable[[float], float]] = {"er": _er_scale, "sde": lambda r: r * r, "ode": lambda r: r}


@torch.no_grad()
def _er_sde(run: Run, x: Tensor, s_noise: float, order: int, form: Form) -> Iterator[Step]:
    scale = _SCALES[form]
    history: list[tuple[float, Tensor]] = []  # (ratio, x0), the latest first
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        history = [(begin.ratio, denoised), *history[: order - 1]]
        if end.sigma == 0 or (form == "ode" and begin.alpha == 0):
            x = transfer(x, denoised, begin, end)
        else:
            keep = scale(end.ratio) / scale(begin.ratio)
            kept = keep * end.alpha / begin.alpha if begin.alpha > 0 else 0.0
            x = x * kept + denoised * (end.alpha * (1 - keep))
            for change, weight in _er_terms(history, begin, end, scale):
                x = x + change * (end.alpha * weight)
            std = end.sigma * math.sqrt(max(0.0, 1 - (keep * begin.ratio / end.ratio) ** 2)) if keep > 0 else end.sigma
            if form != "ode" and std * s_noise > 0:
                x = x + run.fresh(x, begin, end) * (std * s_noise)
        if begin.alpha == 0:
            history = []  # there is no finite ratio to draw a line through
        yield run.step(index, x, denoised)


def _er_terms(
    history: list[tuple[float, Tensor]], begin: Level, end: Level, scale: Callable[[float], float]
) -> Iterator[tuple[Tensor, float]]:
    """Derivatives of x0 with respect to the ratio, and the integrals that they are multiplied by.

    The k-th is (r' - r)^k / k! + phi(r') integral of (u - r)^(k-1) / (k-1)! / phi(u) over u from r' to r, integrated
    in log u (variation of constants and integration by parts). The first derivative is that of the parabola where there
    are three calls; the authors keep the chord's, and so reach order 2.
    """
    if len(history) < 2 or begin.alpha == 0:
        return
    (now, x0), (before, x1) = history[0], history[1]
    last, first = scale(end.ratio), (x0 - x1) * (1 / (now - before))
    step = end.ratio - now
    bounds = math.log(end.ratio), math.log(now)
    area = integral(lambda log: math.exp(log) * last / scale(math.exp(log)), *bounds)
    if len(history) == 2:
        yield first, step + area
    else:
        earlier, x2 = history[2]
        bend = (first - (x1 - x2) * (1 / (before - earlier))) * (1 / (now - earlier))
        first, second = first + bend * (now - before), bend * 2
        yield first, step + area
        moment = integral(lambda log: math.exp(log) * (math.exp(log) - now) * last / scale(math.exp(log)), *bounds)
        yield second, step**2 / 2 + moment


def sa_solver(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    order: int = 2,
    corrector_order: int = 2,
    lower_order_final: bool = True,
) -> Iterator[Step]:
    """Stochastic Adams predictor and corrector (Xue et al. 2023, arXiv:2309.05019, algorithm 1), order 1 to 3 and 1 to
    4, data prediction.

    `eta` is tau, the share of the SDE's noise, between timesteps 200 and 800; outside there is none, as the authors
    set it. Each call both corrects the step that led to it, with that step's noise, and predicts the next. Two nodes
    use the authors' weights for few steps. `lower_order_final` lowers the orders towards the last step. The step to
    sigma 0 returns x0, and a step from pure noise of a flow is of order 1 and not corrected.
    """
    check_order(order, 3)
    check_order(corrector_order, 4)
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _sa_solver(run, x, eta, s_noise, order, corrector_order, lower_order_final)


@torch.no_grad()
def _sa_solver(
    run: Run, x: Tensor, eta: float, s_noise: float, order: int, corrector_order: int, lower_order_final: bool
) -> Iterator[Step]:
    history: list[tuple[Level, Tensor]] = []  # (level, x0), the latest first
    start, tau, fresh = x, 0.0, None  # of the last step: state, share of noise, noise with its std
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised = run.ask(x, begin)
        history = [(begin, denoised), *history[: max(order, corrector_order - 1)]]
        if index > 0 and run.levels[index - 1].alpha > 0:
            count = min(corrector_order, run.steps - index + 2) if lower_order_final else corrector_order
            x = _adams(start, history[:count], run.levels[index - 1], begin, tau, fresh)
        history = [(level, x0) for level, x0 in history if level.alpha > 0 or level is begin]
        count = min(order, run.steps - index) if lower_order_final else order
        start, tau = x, _tau(run, begin, eta)
        std = end.sigma * math.sqrt(1 - (end.ratio / begin.ratio) ** (2 * tau**2))
        fresh = run.fresh(x, begin, end) * (std * s_noise) if std * s_noise > 0 else None
        x = _adams(start, history[:count], begin, end, tau, fresh)
        yield run.step(index, x, denoised)


def _tau(run: Run, begin: Level, eta: float) -> float:
    timestep = float(run.schedule.timestep(torch.tensor(begin.sigma, dtype=torch.float64)))
    return eta if 200 <= timestep <= 800 else 0.0


def _adams(
    x: Tensor, nodes: list[tuple[Level, Tensor]], begin: Level, end: Level, tau: float, fresh: Tensor | None
) -> Tensor:
    """One step of the SDE with x0 as a polynomial in lambda through `nodes`, and `fresh` noise added."""
    h = end.lam - begin.lam
    if math.isinf(h) or len(nodes) < 2:
        fall = (end.ratio / begin.ratio) ** (tau**2)
        x = x * (end.sigma / begin.sigma * fall) + nodes[0][1] * (end.alpha - end.sigma / begin.ratio * fall)
        return x if fresh is None else x + fresh
    power = 1 + tau**2
    x = x * (end.sigma / begin.sigma * math.exp(-(tau**2) * h))
    places = [level.lam - begin.lam for level, _ in nodes]
    if len(nodes) == 2:  # the first moment h^2 / 2 stands for the exact one: the difference is of third order
        area, moment = -math.expm1(-power * h) / power, h * h / 2
        weights = [(moment - places[1 - j] * area) / (places[j] - places[1 - j]) for j in range(2)]
    else:
        weights = lagrange_weights(places, 0.0, h, lambda at: math.exp(-power * (h - at)))
    for (_, x0), weight in zip(nodes, weights, strict=True):
        x = x + x0 * (end.alpha * power * weight)
    return x if fresh is None else x + fresh
