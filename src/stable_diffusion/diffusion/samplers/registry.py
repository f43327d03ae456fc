"""The decorator that makes a sampler of a few lines of loop, the checks of options, and the list of all samplers.

    @sampler(order_up_to(4), order=4)
    def lms(run: Run, x: Tensor, *, order: int = 4) -> Iterator[Step]: ...

A loop is given the checked `Run` and the start state x [B,C,H,W], and yields a `Step` after each step; its keyword
parameters are the sampler's options. It is found under its name, which is the sampler's id. What else a sampler is
called stands in `request/names.py`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ...errors import InvalidRequest, unknown_choice
from ...types import Denoiser, NoiseSource, PlainDenoiser, Schedule, Step
from .base import Run, prepare

Options: TypeAlias = Mapping[str, Any]
Check: TypeAlias = Callable[[Options], None]
"""Raises InvalidRequest where one of the options, which are complete, has a value that the sampler cannot use."""

NOT_NEGATIVE = ("s_churn", "s_tmin", "s_tmax", "eta", "s_noise")
"""Options that are a finite number of at least 0 in every sampler that has them (s_tmax may be infinite)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Solver:
    """A sampler, called as (denoise, x, sigmas, schedule, *, noise, **options), and what to know of it.

    order       order of convergence with noise switched off.
    calls       denoiser calls a step (the last step may take one less, the first of plms takes one more).
    brownian    its noise should come from a Brownian path.
    paired      uses the unguided estimate too, so that the negative prompt counts at guidance 1 as well.
    unit        what guidance is divided by: A1111 gives its CFG++ sampler the scales of ordinary guidance, 12.5 for 1.
    skips_last  its levels are those of one step more, without the lowest above 0, from which its last step would be
                short: so A1111 runs it, and ComfyUI the first two.
    options     names and defaults of its options.
    draws       whether such a run draws noise, given options that ask for noise.
    """

    id: str
    loop: Callable[..., Iterator[Step]]
    options: Options
    checks: tuple[Check, ...]
    order: int
    calls: int
    brownian: bool
    paired: bool
    unit: float
    skips_last: bool
    draws: Callable[[Run, Options], bool]

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.loop.__doc__)

    @property
    def stochastic(self) -> bool:
        """Whether it adds noise with its default options."""
        return _noisy(self.options)

    def __call__(
        self,
        denoise: Denoiser | PlainDenoiser,
        x: Tensor,
        sigmas: Tensor,
        schedule: Schedule,
        *,
        noise: NoiseSource | None = None,
        **options: Any,
    ) -> Iterator[Step]:
        """The steps of one run from state x [B,C,H,W] at sigmas[0] down to sigmas[-1], without gradients.

        Raises InvalidRequest at the call, not at the first step: for an option that is unknown or out of range, for
        sigmas that do not fall, and where these options draw noise and there is no source.
        """
        for name in options:
            if name not in self.options:
                raise unknown_choice(f"option of sampler {self.id!r}", name, self.options)
        options = {**self.options, **options}
        for check in (*self.checks, _not_negative):
            check(options)
        run = prepare(denoise, x, sigmas, schedule, noise)
        if noise is None and _noisy(options) and self.draws(run, options):
            raise InvalidRequest("these settings add noise at every step: expected a noise source")
        return _without_gradients(self.loop(run, x, **options))


SOLVERS: dict[str, Solver] = {}
"""Every sampler by its id."""


def sampler(
    *checks: Check,
    order: int,
    calls: int = 1,
    brownian: bool = False,
    paired: bool = False,
    unit: float = 1.0,
    skips_last: bool = False,
    draws: Callable[[Run, Options], bool] = lambda run, options: True,
) -> Callable[[Callable[..., Iterator[Step]]], Solver]:
    """Make a sampler of the generator function below: checked, without gradients, and listed in `SOLVERS`.

    The arguments are those of `Solver`.
    """

    def listed(loop: Callable[..., Iterator[Step]]) -> Solver:
        parameters = inspect.signature(loop).parameters.values()
        SOLVERS[loop.__name__] = solver = Solver(
            id=loop.__name__,
            loop=loop,
            options={p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY},
            checks=checks,
            order=order,
            calls=calls,
            brownian=brownian,
            paired=paired,
            unit=unit,
            skips_last=skips_last,
            draws=draws,
        )
        return solver

    return listed


@torch.no_grad()
def _without_gradients(steps: Iterator[Step]) -> Iterator[Step]:
    """Gradients are off while a step is made, and as the caller has them between steps."""
    yield from steps


def _noisy(options: Options) -> bool:
    """Whether these options ask for noise at all."""
    if "s_churn" in options:
        return bool(options["s_churn"] > 0)
    return bool(options.get("eta", 1.0) * options.get("s_noise", 0.0) > 0)


# --- checks -----------------------------------------------------------------------------------------------------------


def _not_negative(options: Options) -> None:
    for name in NOT_NEGATIVE:
        if name in options:
            check_number(name, options[name])


def check_number(name: str, value: float) -> None:
    """InvalidRequest where an option is negative, not a number or, but for s_tmax, infinite."""
    if math.isnan(value) or value < 0 or (math.isinf(value) and name != "s_tmax"):
        raise InvalidRequest(f"{name} {value}: expected a finite number of at least 0")


def order_up_to(highest: int, option: str = "order") -> Check:
    """The option is a whole number from 1 to `highest`."""

    def check(options: Options) -> None:
        order = options[option]
        if order not in range(1, highest + 1):
            raise InvalidRequest(f"order {order!r}: expected a whole number from 1 to {highest}")

    return check


def one_of(option: str, choices: Iterable[Any]) -> Check:
    """The option is one of these."""
    known = tuple(choices)

    def check(options: Options) -> None:
        if options[option] not in known:
            raise unknown_choice(option, options[option], map(str, known))

    return check
