"""DPM-Solver with noise prediction (Lu et al. 2022, arXiv:2206.00927): its fast and its adaptive form.

Both choose their own levels, between the first and the last above 0 of those given, and end with one more call that
takes what noise is left there, where `sigmas` ends on 0. Time is lambda = log(alpha / sigma); each image of a batch has
its own lambda [B], float64, so that no image's steps depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InvalidRequest
from ...types import Step
from .base import STEEP, Level, Run, transfer
from .registry import Options, one_of, sampler

SHORTEST = 0.01
"""Steps of `dpm_adaptive` this short in lambda are taken whatever the error, so that it always ends."""


@sampler(order=3)
def dpm_fast(run: Run, x: Tensor, *, eta: float = 0.0, s_noise: float = 1.0) -> Iterator[Step]:
    """DPM-Solver-fast (appendix D.2): as many calls as `sigmas` has steps, in single steps of order 3 and one or two
    lower ones, even in lambda. The number of steps it reports is theirs, about a third."""
    head, (first, last), tail = _parts(run)
    plan = _fast_orders(run.steps - len(head)) if first.lam < last.lam else []
    total = len(head) + len(plan) + len(tail)
    index = 0
    for begin, end in head:
        x, step = _plain(run, x, begin, end, index, total)
        yield step
        index += 1
    places = torch.linspace(first.lam, last.lam, len(plan) + 1, dtype=torch.float64).tolist()
    for order, *pair in zip(plan, places, places[1:], strict=False):
        now, then = (torch.full((len(x),), place, dtype=torch.float64) for place in pair)
        down, std = _split(run, now, then, eta)
        solver = _Steps(run, x, now, down)
        x = solver.of_order(order)
        if eta > 0:
            x = _raised(run, x, now, down, then, std * s_noise)
        yield Step(index=index, total=total, sigma=float(_sigma_alpha(run, now)[0][0]), x=x, denoised=solver.denoised)
        index += 1
    for begin, end in tail:
        x, step = _plain(run, x, begin, end, index, total)
        yield step


def _check_tolerances(options: Options) -> None:
    rtol, atol = options["rtol"], options["atol"]
    if not (rtol >= 0 and atol > 0 and math.isfinite(rtol + atol)):
        raise InvalidRequest(f"rtol {rtol} and atol {atol}: expected a finite rtol of at least 0 and atol above 0")


@sampler(one_of("order", (2, 3)), _check_tolerances, order=3, calls=3)
def dpm_adaptive(
    run: Run,
    x: Tensor,
    *,
    eta: float = 0.0,
    s_noise: float = 1.0,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
) -> Iterator[Step]:
    """DPM-Solver-12 or -23 with step size control (appendix C, algorithm 3), as k-diffusion sets it.

    The number of steps follows from the error allowed, `atol` plus `rtol` of the state, not from `sigmas`; progress is
    reported against `sigmas`, and an index comes more than once. The error is measured image by image.
    """
    head, (first, last), tail = _parts(run)
    for begin, end in head:
        x, step = _plain(run, x, begin, end, 0, run.steps)
        yield step
    now = torch.full((len(x),), first.lam, dtype=torch.float64)
    size, before = torch.full_like(now, 0.05), x
    exponent = 1 / (1.5 if eta > 0 else order)
    while bool((now < last.lam - 1e-5).any()):
        short = size <= SHORTEST
        then = (now + size.clamp(min=SHORTEST)).clamp(max=last.lam)
        down, std = _split(run, now, then, eta)
        solver = _Steps(run, x, now, down)
        low, high = solver.low_and_high(order)
        factor = (1 / (_errors(low, high, before, rtol, atol) + 1e-8)) ** exponent
        taken = (factor >= 0.81) | short | ~factor.isfinite()
        if eta > 0:  # draws once a try, whatever the other images do
            high = _raised(run, high, now, down, then, std * s_noise)
        active = taken & (now < last.lam - 1e-5)
        sigma = float(_sigma_alpha(run, now)[0].max())
        x, before = _where(active, high, x), _where(active, low, before)
        now = torch.where(active, then, now)
        size = size.clamp(min=SHORTEST) * (1 + torch.atan(factor.nan_to_num(1.0, 1e8) - 1))
        yield Step(index=_passed(run, now), total=run.steps, sigma=sigma, x=x, denoised=solver.denoised)
    for begin, end in tail:
        x, step = _plain(run, x, begin, end, run.steps - 1, run.steps)
        yield step


def _fast_orders(calls: int) -> list[int]:
    """Orders of the single steps that make up `calls`: all 3, except that the last are 2 and 1, or 1, or 2."""
    if calls % 3 == 0:
        return [*[3] * (calls // 3 - 1), 2, 1] if calls else []
    return [*[3] * (calls // 3), calls % 3]


def _parts(run: Run) -> tuple[list[tuple[Level, Level]], tuple[Level, Level], list[tuple[Level, Level]]]:
    """Steps of order 1 from pure noise, where there are any; the solver's first and last level; the step to 0."""
    levels = list(run.levels)
    head, tail = [], []
    while len(levels) > 1 and levels[0].ratio >= STEEP:
        head.append((levels[0], levels[1]))
        levels = levels[1:]
    if levels[-1].sigma == 0 and len(levels) > 1:
        tail = [(levels[-2], levels[-1])]
        levels = levels[:-1]
    return head, (levels[0], levels[-1]), tail


def _plain(run: Run, x: Tensor, begin: Level, end: Level, index: int, total: int) -> tuple[Tensor, Step]:
    denoised = run.ask(x, begin)
    x = transfer(x, denoised, begin, end)
    return x, Step(index=index, total=total, sigma=begin.sigma, x=x, denoised=denoised)


def _passed(run: Run, now: Tensor) -> int:
    """Steps of `sigmas` that every image has begun, less one."""
    sigma = float(_sigma_alpha(run, now)[0].max()) * (1 - 1e-9)
    return min(max(0, sum(level.sigma > sigma for level in run.levels) - 1), run.steps - 1)


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.to(new.device).reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def _errors(low: Tensor, high: Tensor, before: Tensor, rtol: float, atol: float) -> Tensor:
    """Root mean square of the difference over the error allowed, image by image: float64 [B]."""
    allowed = (rtol * torch.maximum(low.abs(), before.abs())).clamp(min=atol)
    ratios = ((low - high) / allowed).double()
    return torch.stack([ratio.square().mean().sqrt() for ratio in ratios]).cpu()


def _sigma_alpha(run: Run, lam: Tensor) -> tuple[Tensor, Tensor]:
    """The levels [B] at lambda [B]."""
    ratio = torch.exp(-lam)
    sigma = ratio / (1 + run.slope * ratio)
    return sigma, 1 - run.slope * sigma


def _split(run: Run, now: Tensor, then: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Where the solver steps to and the std of the noise that leads back up to `then` (see `base.ancestral`)."""
    if eta == 0:
        return then, torch.zeros_like(then)
    last = run.levels[-1] if run.levels[-1].sigma > 0 else run.levels[-2]
    high, low = torch.exp(-now), torch.exp(-then)
    up = low * (eta * (1 - (low / high) ** 2).clamp(min=0).sqrt()).clamp(max=1 - 1e-9)
    down = torch.minimum(-0.5 * torch.log(low**2 - up**2), torch.full_like(then, last.lam))
    down = torch.maximum(down, then)
    return down, _sigma_alpha(run, then)[1] * (low**2 - torch.exp(-2 * down)).clamp(min=0).sqrt()


def _raised(run: Run, x: Tensor, now: Tensor, down: Tensor, then: Tensor, std: Tensor) -> Tensor:
    (begin, _), (end, alpha) = _sigma_alpha(run, now), _sigma_alpha(run, then)
    x = x * _like(alpha / _sigma_alpha(run, down)[1], x)
    if run.noise is None:
        return x
    return x + run.noise(float(begin.max()), float(end.max())).to(x) * _like(std, x)


def _like(numbers: Tensor, x: Tensor) -> Tensor:
    return numbers.to(x.device, x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


@dataclass
class _Steps:
    """Single steps of DPM-Solver from x at lambda `begin` to `end`, each [B] (paper, algorithms 1, 4 and 5)."""

    run: Run
    x: Tensor
    begin: Tensor
    end: Tensor

    def __post_init__(self) -> None:
        self.denoised, self.eps = self._ask(self.x, self.begin)
        self.h = self.end - self.begin

    def of_order(self, order: int) -> Tensor:
        if order == 1:
            return self._move(self.end)
        return self._second(0.5)[0] if order == 2 else self._third()

    def low_and_high(self, order: int) -> tuple[Tensor, Tensor]:
        """The step of order - 1 and that of `order`, with calls in common."""
        if order == 2:
            return self._move(self.end), self._second(0.5)[0]
        low, change = self._second(1 / 3)
        return low, self._third(change)

    def _ask(self, x: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """(x0, noise) of state x at lambda."""
        sigma, alpha = _sigma_alpha(self.run, lam)
        denoised = self.run.denoise(x, sigma.to(x.device, x.dtype)).x0
        return denoised, (x - denoised * _like(alpha, x)) * _like(1 / sigma, x)

    def _move(self, end: Tensor, change: Tensor | None = None, share: Tensor | None = None) -> Tensor:
        """a'/a x - s' (e^h - 1) noise - s' share change."""
        (_, alpha), (sigma_end, alpha_end) = _sigma_alpha(self.run, self.begin), _sigma_alpha(self.run, end)
        x = self.x * _like(alpha_end / alpha, self.x)
        x = x - self.eps * _like(sigma_end * torch.expm1(end - self.begin), x)
        return x if change is None or share is None else x - change * _like(sigma_end * share, x)

    def _second(self, r: float) -> tuple[Tensor, Tensor]:
        """Order 2 with its inner call at r h; also that call's change of the noise."""
        middle = self.begin + r * self.h
        change = self._ask(self._move(middle), middle)[1] - self.eps
        return self._move(self.end, change, torch.expm1(self.h) / (2 * r)), change

    def _third(self, change: Tensor | None = None) -> Tensor:
        """Order 3 with inner calls at h / 3 (whose change may be known) and 2 h / 3."""
        inner, outer = self.begin + self.h / 3, self.begin + self.h * (2 / 3)
        if change is None:
            change = self._ask(self._move(inner), inner)[1] - self.eps
        state = self._move(outer, change, 2 * _bend(self.h * (2 / 3)))
        change = self._ask(state, outer)[1] - self.eps
        return self._move(self.end, change, 1.5 * _bend(self.h))


def _bend(h: Tensor) -> Tensor:
    """(e^h - 1) / h - 1, and 0 at h = 0."""
    return torch.where(h == 0, 0.0, torch.expm1(h) / torch.where(h == 0, 1.0, h) - 1)
