"""What all samplers share: noise levels as numbers, one run, and the moves of which every step is made.

A state at level (alpha, sigma) is x = alpha x0 + sigma noise. With ratio = sigma / alpha and lambda = -log ratio, a
flow model is the DDPM model of the same ratio seen through x / alpha, so one formula serves both. alpha = 0 (a flow's
pure noise) means ratio = inf, sigma = 0 the finished picture; the moves below hold in both limits.

Coefficients are Python floats (double precision) that multiply whole tensors, one operation at a time: no reduction
over the batch and no fused multiply-add, so that image k of a batch is bit-identical to that image alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from ...errors import InvalidRequest
from ...types import Denoiser, Estimate, NoiseSource, PlainDenoiser, Schedule, Step

STEEP = 100.0
"""sigma / alpha from which a state is all but noise, as with zero terminal SNR, whose first sigma is 4096. A step down
from there spans far more than the levels at which the picture forms: a mean of slopes over it is off by about
sigma / (2 sigma'^2), so that samplers take it with x0 held constant. Levels of other models do not reach it."""


@dataclass(frozen=True)
class Level:
    """A noise level: x = alpha * x0 + sigma * noise."""

    sigma: float
    alpha: float

    @property
    def ratio(self) -> float:
        """sigma / alpha in [0, inf]."""
        return self.sigma / self.alpha if self.alpha > 0 else math.inf

    @property
    def lam(self) -> float:
        """Half log-SNR, log(alpha / sigma), in [-inf, inf]."""
        if self.sigma == 0:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha > 0 else -math.inf


@dataclass(frozen=True)
class Run:
    """The checked input of one sampling run."""

    denoise: Denoiser
    schedule: Schedule
    noise: NoiseSource | None
    levels: tuple[Level, ...]

    @property
    def steps(self) -> int:
        return len(self.levels) - 1

    def intervals(self) -> Iterator[tuple[int, tuple[Level, Level]]]:
        """(index, (begin, end)) of every step."""
        return enumerate(pairwise(self.levels))

    def estimate(self, x: Tensor, level: Level) -> Estimate:
        """What the denoiser makes of the state x [B,C,H,W] at `level`."""
        return self.denoise(x, x.new_full((len(x),), level.sigma))

    def ask(self, x: Tensor, level: Level) -> Tensor:
        """The denoiser's x0 [B,C,H,W], with guidance."""
        return self.estimate(x, level).x0

    def fresh(self, x: Tensor, begin: Level, end: Level) -> Tensor:
        """Standard normal noise like x for a step from `begin` to `end`."""
        assert self.noise is not None
        return self.noise(begin.sigma, end.sigma).to(x)

    def at_sigma(self, sigma: float) -> Level:
        """The level of this sigma."""
        return Level(sigma, float(self.schedule.alpha(torch.tensor(sigma, dtype=torch.float64))))

    @cached_property
    def slope(self) -> float:
        """How fast alpha falls with sigma, to which it is affine: 0 for alpha = 1, and 1 for a flow's 1 - sigma."""
        return 1 - float(self.schedule.alpha(torch.ones((), dtype=torch.float64)))

    def at_ratio(self, ratio: float) -> Level:
        """The level whose sigma / alpha is `ratio`."""
        if math.isinf(ratio):
            return Level(1.0, 0.0)
        sigma = ratio / (1 + self.slope * ratio)
        return Level(sigma, 1 - self.slope * sigma)

    def step(self, index: int, x: Tensor, denoised: Tensor) -> Step:
        """What is reported of step `index`, which led to x."""
        return Step(index=index, total=self.steps, sigma=self.levels[index].sigma, x=x, denoised=denoised)


def prepare(
    denoise: Denoiser | PlainDenoiser, x: Tensor, sigmas: Tensor, schedule: Schedule, noise: NoiseSource | None
) -> Run:
    """Check what every sampler is given; InvalidRequest where it is not usable."""
    if not x.is_floating_point() or x.ndim < 2:
        raise InvalidRequest(f"state of shape {tuple(x.shape)} and type {x.dtype}: expected floating point [B,C,H,W]")
    levels = torch.as_tensor(sigmas).detach().to("cpu", torch.float64)
    if levels.ndim != 1 or len(levels) < 2:
        raise InvalidRequest(f"sigmas of shape {tuple(levels.shape)}: expected at least two levels, one step")
    if not bool(torch.isfinite(levels).all()) or bool((levels.diff() >= 0).any()) or bool(levels[-1] < 0):
        raise InvalidRequest(f"sigmas {levels.tolist()}: expected finite numbers that fall strictly, to 0 or above")
    alphas = schedule.alpha(levels)
    if bool((alphas < 0).any()):
        raise InvalidRequest(
            f"sigmas start at {float(levels[0])}: expected at most {schedule.sigma_max} for this model"
        )
    pairs = zip(levels.tolist(), alphas.tolist(), strict=True)
    return Run(estimating(denoise), schedule, noise, tuple(Level(s, a) for s, a in pairs))


def estimating(denoise: Denoiser | PlainDenoiser) -> Denoiser:
    """The denoiser itself where it answers with an `Estimate`; one that answers with x0 alone has no other estimate."""

    def ask(x: Tensor, sigma: Tensor) -> Estimate:
        found = denoise(x, sigma)
        return found if isinstance(found, Estimate) else Estimate.plain(found)

    return ask


# --- moves ------------------------------------------------------------------------------------------------------------


def transfer(x: Tensor, x0: Tensor, begin: Level, end: Level) -> Tensor:
    """Move along the probability-flow ODE with x0 held constant: (s' / s) x + a' (1 - exp(-h)) x0.

    It is Euler's step in sigma, DDIM, and DPM-Solver++ of order 1 (Lu et al. 2022, arXiv:2211.01095, equation 4.1), all
    one and the same; a' (1 - exp(-h)) = a' - a s' / s needs no logarithm.
    """
    shrink = end.sigma / begin.sigma
    return x * shrink + x0 * (end.alpha - begin.alpha * shrink)


def derivative(x: Tensor, denoised: Tensor, level: Level) -> Tensor:
    """dx/dsigma = (x - x0) / sigma: the noise for alpha = 1, the velocity noise - x0 for a flow."""
    return (x - denoised) * (1 / level.sigma)


def ancestral(run: Run, begin: Level, end: Level, eta: float) -> tuple[Level, float]:
    """Split a stochastic step into a fall to a lower level and fresh noise: (level `down`, std of the noise at `end`).

    The noise is eta times that of the exact posterior q(x_end | x_begin, x0), std s' sqrt(1 - exp(-2h)) (Song et al.
    2020, arXiv:2010.02502, equation 16), at most all of s'. With alpha = 1 these are k-diffusion's sigma_down and
    sigma_up; for flows the state at `down` is scaled by alpha' / alpha_down before the noise is added (`renoise`).
    """
    if end.sigma == 0 or eta == 0:
        return end, 0.0
    up = end.ratio * min(1.0, eta * math.sqrt(1 - (end.ratio / begin.ratio) ** 2))
    return run.at_ratio(math.sqrt(end.ratio**2 - up**2)), end.alpha * up


def renoise(run: Run, x: Tensor, begin: Level, down: Level, end: Level, std: float) -> Tensor:
    """Raise the state from level `down` to `end` with fresh noise of `std`; `begin` names the step for the noise."""
    if down == end:
        return x
    x = x * (end.alpha / down.alpha)
    return x + run.fresh(x, begin, end) * std if std > 0 else x


def forward(run: Run, x: Tensor, low: Level, high: Level, s_noise: float) -> Tensor:
    """The forward process from level `low` up to `high`, its noise times `s_noise`."""
    keep = high.alpha / low.alpha
    std = math.sqrt(high.sigma**2 - (keep * low.sigma) ** 2) * s_noise
    return x * keep + run.fresh(x, high, low) * std if std > 0 else x * keep
