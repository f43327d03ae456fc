"""Solvers of the reverse-time SDE, with noise at every step: DPM-Solver++ in half log-SNR, ER-SDE and SA-Solver.

`eta` scales the noise: 1 is the diffusion SDE, 0 the probability-flow ODE (then the sampler is deterministic);
`s_noise` is a factor on the noise that leaves the levels as they are. DPM-Solver++ is meant for `BrownianNoise`, any
noise source will do. The step to sigma 0 returns x0. From pure noise of a flow (lambda = -inf) the first step is of
order 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ...errors import InvalidRequest
from ...types import Step
from .base import Level, Run, ancestral, renoise, transfer
from .quadrature import integral, lagrange_weights, phi_2, phi_3
from .registry import Options, one_of, order_up_to, sampler

# --- DPM-Solver++ -----------------------------------------------------------------------------------------------------


def _check_r(options: Options) -> None:
    if not 0 < options["r"] <= 1:
        raise InvalidRequest(f"r {options['r']}: expected a number above 0 and at most 1")


@sampler(_check_r, order=2, calls=2, brownian=True)
def dpmpp_sde(run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5) -> Iterator[Step]:
    """DPM-Solver++ SDE, single-step of order 2, two calls a step; `r` in (0, 1] places the inner level in lambda.

    The SDE form (Lu et al. 2022, arXiv:2211.01095, section 5) of algorithm 1 there, as in k-diffusion.
    """
    for index, (begin, end) in run.intervals():
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


@sampler(one_of("solver", ("midpoint", "heun")), order=2, brownian=True)
def dpmpp_2m_sde(
    run: Run,
    x: Tensor,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver: Literal["midpoint", "heun"] = "midpoint",
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M), order 2, one call a step (Lu et al. 2022, arXiv:2211.01095, section 5).

    `solver` is the form of the second-order term; midpoint at eta 0 is `dpmpp_2m`.
    """
    before: Tensor | None = None
    for index, (begin, end) in run.intervals():
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


GROWTH = 2.0
"""A parabola through noisy calls magnifies their noise by the square of how far it is followed beyond them."""


@sampler(order=3, brownian=True, skips_last=True)
def dpmpp_3m_sde(run: Run, x: Tensor, *, eta: float = 1.0, s_noise: float = 1.0) -> Iterator[Step]:
    """SDE-DPM-Solver++(3M), order 3 at eta 0, one call a step; k-diffusion's extension of the 2M solver.

    x0 is a parabola in lambda through the last three calls, integrated exactly (phi functions of exponential
    integrators, Lu et al. 2022, arXiv:2206.00927, appendix B). The second derivative is twice the second divided
    difference; k-diffusion's and diffusers' solvers leave the 2 out and so reach order 2. With noise, a step more than
    `GROWTH` times as long as one of the two before it takes the line through two calls.
    """
    history: list[tuple[float, Tensor]] = []  # (lambda, x0), the latest first
    for index, (begin, end) in run.intervals():
        denoised = run.ask(x, begin)
        h = end.lam - begin.lam
        x = exponential_step(x, denoised, begin, end, eta)
        history = [(lam, x0) for lam, x0 in [(begin.lam, denoised), *history[:2]] if math.isfinite(lam)]
        if len(history) > 1 and math.isfinite(h):
            far = eta * s_noise > 0 and _longest(history, h) > GROWTH
            first, second = _derivatives(history[:2] if far else history, h)
            x = x + first * (end.alpha * phi_2(h * (1 + eta)))
            if second is not None:
                x = x - second * (end.alpha * phi_3(h * (1 + eta)))
        x = _with_noise(run, x, begin, end, eta, s_noise)
        yield run.step(index, x, denoised)


def _longest(history: list[tuple[float, Tensor]], h: float) -> float:
    """How many times as long as the shortest step between the calls this one is."""
    return max(h / (now - before) for (now, _), (before, _) in pairwise(history))


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


# --- ER-SDE and SA-Solver ---------------------------------------------------------------------------------------------

Form = Literal["er", "sde", "ode"]


def _er_scale(ratio: float) -> float:
    return ratio * (math.exp(min(ratio**0.3, 600.0)) + 10) if ratio < math.inf else math.inf


_SCALES: dict[str, Callable[[float], float]] = {"er": _er_scale, "sde": lambda r: r * r, "ode": lambda r: r}


@sampler(order_up_to(3), one_of("form", _SCALES), order=3, draws=lambda run, options: options["form"] != "ode")
def er_sde(run: Run, x: Tensor, *, s_noise: float = 1.0, order: int = 3, form: Form = "er") -> Iterator[Step]:
    """Extended reverse-time SDE solver, order 1 to 3 (Cui et al. 2023, arXiv:2309.06169, algorithms 1 to 3).

    With r = sigma / alpha, a step keeps phi(r') / phi(r) of the state and adds the noise that this leaves out. `form`
    is phi: "er" r (exp(r^0.3) + 10), the paper's best; "sde" r^2, the diffusion SDE; "ode" r, without noise.
    """
    scale = _SCALES[form]
    history: list[tuple[float, Tensor]] = []  # (ratio, x0), the latest first
    for index, (begin, end) in run.intervals():
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


@sampler(order_up_to(3), order_up_to(4, "corrector_order"), order=2)
def sa_solver(
    run: Run,
    x: Tensor,
    *,
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
    use the authors' weights for few steps. `lower_order_final` lowers the orders towards the last step that ends above
    sigma 0, which is the authors' last one and ComfyUI's last but one. The step to sigma 0 returns x0, and a step from
    pure noise of a flow is of order 1 and not corrected.
    """
    history: list[tuple[Level, Tensor]] = []  # (level, x0), the latest first
    start, tau, fresh = x, 0.0, None  # of the last step: state, share of noise, noise with its std
    last = run.steps - (run.levels[-1].sigma == 0)  # the step to 0 returns x0 whatever the order
    for index, (begin, end) in run.intervals():
        denoised = run.ask(x, begin)
        history = [(begin, denoised), *history[: max(order, corrector_order - 1)]]
        if index > 0 and run.levels[index - 1].alpha > 0:
            count = min(corrector_order, last - index + 2) if lower_order_final else corrector_order
            x = _adams(start, history[:count], run.levels[index - 1], begin, tau, fresh)
        history = [(level, x0) for level, x0 in history if level.alpha > 0 or level is begin]
        count = max(1, min(order, last - index)) if lower_order_final else order
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
