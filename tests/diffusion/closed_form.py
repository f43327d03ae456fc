"""Problems whose answers are known in closed form, for the tests of samplers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stable_diffusion.diffusion.schedule import DiscreteSchedule, FlowSchedule, ddpm_schedule, per_image

AnySchedule = DiscreteSchedule | FlowSchedule
SCHEDULES: dict[str, AnySchedule] = {"ddpm": ddpm_schedule(), "flow": FlowSchedule()}
MEAN = torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64).reshape(1, 4, 1, 1)
STD = torch.tensor([0.5, 1.0, 0.3, 2.0], dtype=torch.float64).reshape(1, 4, 1, 1)


@dataclass(frozen=True)
class Gaussian:
    """x0 ~ N(mean, std^2), independent per value: the ideal denoiser and the ODE's solution are affine in x."""

    schedule: AnySchedule
    mean: Tensor = MEAN
    std: Tensor = STD

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x]."""
        alpha, sigma = per_image(self.schedule.alpha(sigma), x), per_image(sigma, x)
        mean, std = self.mean.to(x), self.std.to(x)
        return mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)

    def marginal(self, sigma: float) -> tuple[Tensor, Tensor]:
        """Mean and std of x at `sigma`."""
        alpha = float(self.schedule.alpha(torch.tensor(sigma, dtype=torch.float64)))
        return alpha * self.mean, (alpha**2 * self.std**2 + sigma**2).sqrt()

    def carry(self, x: Tensor, begin: float, end: float) -> Tensor:
        """The probability-flow ODE's exact solution at `end` from x at `begin`: quantiles stay quantiles."""
        (mean, std), (mean_end, std_end) = self.marginal(begin), self.marginal(end)
        return mean_end + (x - mean) / std * std_end

    def draw(self, sigma: float, size: tuple[int, ...], seed: int = 0) -> Tensor:
        """float64 samples of x at `sigma`."""
        mean, std = self.marginal(sigma)
        return mean + std * torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(kind: str, steps: int, high: float, low: float, power: float = 1.0) -> Tensor:
    """Smooth float64 grid [steps + 1], linear ("line") or log-linear ("log") in sigma, of u^power.

    power 2 makes the first steps small, so that the low order of a multistep solver's start does not hide its order.
    """
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** power
    if kind == "line":
        return high + (low - high) * u
    return torch.exp(math.log(high) + (math.log(low) - math.log(high)) * u)


class Replay:
    """A noise source that draws from one generator in a given precision, as diffusers' schedulers do."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> None:
        self.shape, self.dtype = shape, dtype
        self.generator = torch.Generator().manual_seed(seed)

    def start(self) -> Tensor:
        raise AssertionError("the tests make their own start")

    def __call__(self, sigma: Tensor | float, sigma_next: Tensor | float) -> Tensor:
        return torch.randn(self.shape, generator=self.generator, dtype=self.dtype)
