"""Every sampler on every kind of noise levels, by the spread of what it makes of Gaussian data of known spread.

The order of convergence says nothing of few, uneven or noisy steps: there a sampler that extrapolates too far makes
data of standard deviation 0.5 come out at 2. The samplers are linear in the state here, so that two states carry the
exact spread where no noise is added; with noise it is that of a thousand paths, drawn as one batch.
"""

from __future__ import annotations

import functools
import math

import pytest
import torch
from closed_form import AnySchedule, Gaussian
from torch import Tensor

from stable_diffusion.diffusion.samplers import SOLVERS, sample
from stable_diffusion.diffusion.schedule import EDMSchedule, FlowSchedule, ddpm_schedule
from stable_diffusion.diffusion.sigmas import schedule_sigmas

SCHEDULES: dict[str, AnySchedule] = {
    "ddpm": ddpm_schedule(),
    "zero snr": ddpm_schedule(zero_terminal_snr=True),
    "flow": FlowSchedule(3.0),
    "edm": EDMSchedule(sigma_min=0.002, sigma_max=120.0, sigma_data=1.0),
}
GRIDS = ("normal", "karras", "exponential", "sgm_uniform", "beta", "kl_optimal", "ays", "gits")
PATHS = 1000
STD = 0.5
SAME = {"ddim", "ddpm", "euler_cfg_pp", "euler_ancestral_cfg_pp", "ddim_cfg_pp"}
"""Euler's method, or its ancestral form, on data without guidance."""
DISTILLED = {"lcm", "tcd"}
"""They make x0 anew from each estimate, which is the mean of what it could be: their spread is small by design."""

HIGHEST = {5: 0.81, 10: 0.78, 20: 0.71, 50: 0.61}
"""Steps -> the largest spread of any sampler on any levels, but for those below."""
HIGHER = {
    # the estimate's line is drawn through noise; ComfyUI's formula has these too
    ("res_multistep_ancestral", "normal"): 1.25,
    ("res_multistep_ancestral", "kl_optimal"): 1.15,
    ("res_multistep_ancestral", "ays"): 0.85,
    # their second-order term at the last uneven step is k-diffusion's and ComfyUI's
    ("dpmpp_2m_sde", "normal"): 0.83,
    ("res_multistep", "normal"): 0.89,
    ("res_multistep", "kl_optimal"): 0.87,
}
WIDE = {"sa_solver": 1.3, "dpm_2_ancestral": 0.75}
"""Largest spread over nearly five decades of sigma ("edm"): lines through three or four noisy, uneven estimates."""
COARSE = {("zero snr", 5, "karras"), ("zero snr", 5, "exponential"), ("zero snr", 10, "karras")}
COARSE |= {("edm", steps, grid) for steps in (5, 10) for grid in GRIDS}
"""Five decades of sigma in a handful of steps: no sampler brings that to 0.5."""


def unit(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Normal numbers whose mean is 0 and whose standard deviation is 1, not nearly but exactly."""
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    drawn = drawn - drawn.mean()
    return drawn / drawn.std(correction=0)


class Paths:
    """The increments of a thousand Brownian paths, scaled to variance 1; from one level, first to a near one and then
    to a farther one."""

    def __init__(self, schedule: AnySchedule) -> None:
        self.schedule, self.generator = schedule, torch.Generator().manual_seed(7)
        self.last: tuple[float, float, Tensor] | None = None

    def start(self) -> Tensor:
        raise AssertionError("the test makes its own start")

    def __call__(self, sigma: Tensor | float, sigma_next: Tensor | float) -> Tensor:
        begin, end = self.clock(sigma), self.clock(sigma_next)
        fresh = unit((PATHS, 1, 1, 1), self.generator)
        if self.last is not None and self.last[0] == begin and self.last[1] < end:
            share = (self.last[1] - begin) / (end - begin)
            return self.last[2] * math.sqrt(share) + fresh * math.sqrt(1 - share)
        self.last = begin, end, fresh
        return fresh

    def clock(self, sigma: Tensor | float) -> float:
        level = torch.as_tensor(sigma, dtype=torch.float64)
        return float((self.schedule.alpha(level) / level) ** 2)


def levels(name: str, schedule: AnySchedule, grid: str, steps: int) -> Tensor:
    """As a run has them: without the lowest for samplers that leave it out."""
    if not SOLVERS[name].skips_last:
        return schedule_sigmas(grid, schedule, steps).double()
    sigmas = schedule_sigmas(grid, schedule, steps + 1).double()
    return torch.cat([sigmas[:-2], sigmas[-1:]])


def spread(name: str, schedule: AnySchedule, sigmas: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of what the sampler makes of data of mean 0.3 and standard deviation 0.5."""
    problem = Gaussian(schedule, *(torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (0.3, STD)))
    mean, std = problem.marginal(float(sigmas[0]))
    if SOLVERS[name].stochastic and name != "restart":
        noise, start = Paths(schedule), unit((PATHS, 1, 1, 1), torch.Generator().manual_seed(1))
    else:
        noise, start = None, torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    options = {"restarts": 0} if name == "restart" else {}
    *_, last = sample(name, problem.denoise, mean + std * start, sigmas, schedule, noise=noise, **options)
    return float(last.x.mean()), float(last.x.std(correction=0))


@functools.lru_cache
def lowest(kind: str, grid: str, steps: int, skips: bool) -> float:
    """Euler's ancestral spread: the noise of all steps and the lowest order make it the smallest of all."""
    levelled = levels("dpm_2" if skips else "euler_ancestral", SCHEDULES[kind], grid, steps)
    return spread("euler_ancestral", SCHEDULES[kind], levelled)[1]


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in SAME])
def test_the_spread_of_gaussian_data(name: str, kind: str) -> None:
    schedule, wrong = SCHEDULES[kind], []
    for grid in GRIDS if kind == "ddpm" else GRIDS[:-2]:
        for steps in (5, 10, 20, 50) if grid in ("normal", "gits") or kind == "edm" else (5, 10, 20):
            if (kind, steps, grid) in COARSE:
                continue
            mean, std = spread(name, schedule, levels(name, schedule, grid, steps))
            highest = max(HIGHER.get((name, grid), HIGHEST[steps]), WIDE.get(name, 0.0) if kind == "edm" else 0.0)
            low = 0.0 if name in DISTILLED else lowest(kind, grid, steps, SOLVERS[name].skips_last) - 0.01
            if not low <= std <= highest or abs(mean - 0.3) > 0.02:
                wrong.append((grid, steps, round(mean, 3), round(std, 3), round(low, 3), highest))
    assert not wrong, wrong
