"""What all samplers share: checked input, noise levels as numbers, and the three moves of which every step is made.

A state at level (alpha, sigma) is x = alpha x0 + sigma noise. With ratio = sigma / alpha and lambda = -log ratio, a
flow model is the DDPM model of the same ratio seen through x / alpha, so one formula serves both. alpha = 0 (a flow's
pure noise) means ratio = inf, sigma = 0 the finished picture; the moves below hold in both limits.

Coefficients are Python floats (double precision) that multiply whole tensors, one operation at a time: no reduction
over the batch and no fused multiply-add, so that image k of a batch is bit-identical to that image alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InvalidRequest
from ...types import Denoiser, NoiseSource, PairDenoiser, Schedule, Step


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

    def ask(self, x: Tensor, level: Level) -> Tensor:
        """The denoiser's x0 [B,C,H,W] for the state x at `level`."""
        return self.denoise(x, x.new_full((len(x),), level.sigma))

    def ask_both(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """x0 with and without guidance (the same where the denoiser has no `pair`)."""
        if isinstance(self.denoise, PairDenoiser):
            return self.denoise.pair(x, x.new_full((len(x),), level.sigma))
        denoised = self.ask(x, level)
        return denoised, denoised

    def fresh(self, x: Tensor, begin: Level, end: Level) -> Tensor:
        """Standard normal noise like x for a step from `begin` to `end`."""
        assert self.noise is not None
        return self.noise(begin.sigma, end.sigma).to(x)

    def at_ratio(self, ratio: float) -> Level:
        """The level whose sigma / alpha is `ratio`. alpha is affine in sigma (1, or 1 - sigma), hence invertible."""
        slope = 1 - float(self.schedule.alpha(torch.ones((), dtype=torch.float64)))
        if math.isinf(ratio):
            return Level(1.0, 0.0)
        sigma = ratio / (1 + slope * ratio)
        return Level(sigma, 1 - slope * sigma)

    def step(self, index: int, x: Tensor, denoised: Tensor) -> Step:
        return Step(index=index, total=self.steps, sigma=self.levels[index].sigma, x=x, denoised=denoised)


def prepare(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    noise: NoiseSource | None,
    *,
    stochastic: bool = False,
    **numbers: float,
) -> Run:
    """Check what every sampler is given; `numbers` are options that must be at least 0 and not NaN."""
    for name, value in numbers.items():
        if math.isnan(value) or value < 0 or (math.isinf(value) and name != "s_tmax"):
            raise InvalidRequest(f"{name} {value}: expected a finite number of at least 0")
    if not x.is_floating_point() or x.ndim < 2:
        raise InvalidRequest(f"state of shape {tuple(x.shape)} and type {x.dtype}: expected floating point [B,C,H,W]")
    if stochastic and noise is None:
        raise InvalidRequest("these settings add noise at every step: expected a noise source")
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
    return Run(denoise=denoise, schedule=schedule, noise=noise, levels=tuple(Level(s, a) for s, a in pairs))


def transfer(x: Tensor, x0: Tensor, begin: Level, end: Level) -> Tensor:
    """Move along the probability-flow ODE with x0 held constant: (s' / s) x + a' (1 - exp(-h)) x0.

    It is Euler's step in sigma, DDIM, and DPM-Solver++ of order 1 (Lu et al. 2022, arXiv:2211.01095, equation 4.1), all
    one and the same; a' (1 - exp(-h)) = a' - a s' / s needs no logarithm.
    """
    shrink = end.sigma / begin.sigma
    return x * shrink + x0 * (end.alpha - begin.alpha * shrink)


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


@dataclass(frozen=True)
class Churn:
    """Extra noise before each step whose sigma lies in [s_tmin, s_tmax] (Karras et al. 2022, algorithm 2)."""

    s_churn: float
    s_tmin: float
    s_tmax: float
    s_noise: float

    @property
    def stochastic(self) -> bool:
        return self.s_churn > 0

    def apply(self, run: Run, x: Tensor, level: Level) -> tuple[Tensor, Level]:
        """State and level after raising sigma by gamma = min(s_churn / steps, sqrt(2) - 1), to sigma_max at most."""
        if self.s_churn == 0 or level.alpha == 0 or not self.s_tmin <= level.sigma <= self.s_tmax:
            return x, level
        gamma = min(self.s_churn / run.steps, math.sqrt(2) - 1)
        sigma = min(level.sigma * (1 + gamma), max(level.sigma, run.schedule.sigma_max))
        if sigma <= level.sigma:
            return x, level
        high = Level(sigma, float(run.schedule.alpha(torch.tensor(sigma, dtype=torch.float64))))
        keep = high.alpha / level.alpha
        std = math.sqrt(high.sigma**2 - (keep * level.sigma) ** 2) * self.s_noise
        return x * keep + run.fresh(x, high, level) * std, high
