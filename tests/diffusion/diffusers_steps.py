"""Runs of our samplers and of diffusers' schedulers, step by step, for a fixed pseudo-random network and equal levels.

Their schedulers keep tables in float32 and some cast the state to it; here they are given float64 tables and casts, so
that any difference beyond rounding shows.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from closed_form import Replay
from torch import Tensor

from stable_diffusion.diffusion.denoise import network_denoiser
from stable_diffusion.diffusion.samplers import sample
from stable_diffusion.diffusion.schedule import ddpm_schedule, input_scale
from stable_diffusion.diffusion.sigmas import schedule_sigmas
from stable_diffusion.types import Conditioning

SIZE = (2, 4, 3, 5)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
TRAILING = {"timestep_spacing": "trailing"}
TOLERANCE = 1e-9  # relative to the largest value of the state
NOTHING = Conditioning(tokens=torch.zeros(2, 1, 1))


def network(x: Tensor, timestep: Tensor, tokens: Any = None, *, vector: Any = None) -> Tensor:
    """Any smooth function of state and time, element by element."""
    time = timestep.to(torch.float64).reshape(-1, 1, 1, 1) / 1000
    return 0.6 * torch.sin(2.1 * x + 3 * time) + 0.5 * x * time + 0.1 * torch.cos(40 * time)


def start_noise() -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def ours(name: str, levels: Tensor, schedule: Any, prediction: Any, noise: Any = None, **options: Any) -> list[Tensor]:
    """States after each step, in the coordinates that the network sees."""
    base = network_denoiser(network, schedule, prediction)
    first = torch.ones(1, dtype=torch.float64) * levels[0]
    x = start_noise() / input_scale(schedule, first)
    noise = Replay(SIZE, torch.float64, seed=9) if noise is None else noise
    steps = sample(name, lambda x, s: base(x, s, NOTHING), x, levels, schedule, noise=noise, **options)
    return [s.x * input_scale(schedule, levels[s.index + 1 : s.index + 2].double()) for s in steps]


def theirs(scheduler: Any, count: int, *, levels: Tensor | None = None, draws: bool = False) -> list[Tensor]:
    """States after each call of `step`, from a variance-preserving start."""
    if hasattr(scheduler, "alphas_cumprod"):
        scheduler.alphas_cumprod = ddpm_schedule().alphas_cumprod.clone()
        if hasattr(scheduler, "final_alpha_cumprod") and not scheduler.config.set_alpha_to_one:
            scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(count)
    if levels is not None:
        scheduler.sigmas = levels
    scale = getattr(scheduler, "init_noise_sigma", 1.0)
    x = start_noise() * (1.0 if scale == 1 else (levels[0] ** 2 + 1).sqrt())
    extra = {"generator": torch.Generator().manual_seed(9)} if draws else {}
    states = []
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
        output = network(seen, torch.as_tensor(timestep).expand(2))
        with mock.patch.object(torch, "float32", torch.float64):  # several schedulers cast to torch.float32 in `step`
            x = scheduler.step(output, timestep, x, return_dict=False, **extra)[0].double()
        states.append(x)
    return states


def assert_same(left: list[Tensor], right: list[Tensor], tolerance: float) -> None:
    assert len(left) == len(right)
    for index, (a, b) in enumerate(zip(left, right, strict=True)):
        error = float((a - b).abs().max() / b.abs().max())
        assert error < tolerance, (index, error)


def levels_of(kind: str, count: int, schedule: Any = None, **options: Any) -> Tensor:
    """Our grid in float64 (from the timesteps that its float32 levels mean), so that only the solver is compared."""
    schedule = ddpm_schedule() if schedule is None else schedule
    sigmas = schedule_sigmas(kind, schedule, count, **options)
    exact = schedule.sigma(schedule.timestep(sigmas).double())
    return torch.where(sigmas == 0, torch.zeros((), dtype=torch.float64), exact)


def to_vp(states: list[Tensor], levels: Tensor) -> list[Tensor]:
    """Variance-exploding states after each step to what the network sees."""
    return [x / (levels[index + 1] ** 2 + 1).sqrt() for index, x in enumerate(states)]
