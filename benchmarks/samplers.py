"""What a sampler costs beside the network: a step with a network that answers at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import torch

from .measure import Amount, Call
from .rows import Goal, Row, Side, installed

STEPS = 50


class _Instant(torch.nn.Module):
    """Answers with its input."""

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor, **named: object) -> torch.Tensor:
        return x


def ours(name: str, schedule: str) -> Call:
    """Milliseconds a step of guided sampling at 64x64 latents, everything but the network included."""
    from stable_diffusion.diffusion.denoise import guided, network_denoiser
    from stable_diffusion.diffusion.noise import PerImageNoise
    from stable_diffusion.diffusion.samplers import solver
    from stable_diffusion.diffusion.schedule import ddpm_schedule, start_state
    from stable_diffusion.diffusion.sigmas import schedule_sigmas
    from stable_diffusion.types import Conditioning

    levels = ddpm_schedule()
    sigmas = schedule_sigmas(schedule, levels, STEPS)
    text = Conditioning(tokens=torch.randn(1, 77, 768))
    denoise = guided(network_denoiser(_Instant(), levels, "eps"), text, text, 7.5)

    def call() -> Amount:
        source = PerImageNoise([1], (4, 64, 64))
        x = start_state(levels, source.start(), float(sigmas[0]), None)
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in solver(name)(denoise, x, sigmas, levels, noise=source):
                pass
        return Amount((time.perf_counter() - start) / STEPS * 1000, "ms")

    return call


def diffusers() -> Call:
    """The same work by diffusers' scheduler, and the guidance of its pipeline."""
    installed("diffusers")
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(use_karras_sigmas=True)

    def call() -> Amount:
        scheduler.set_timesteps(STEPS)
        x = torch.randn(1, 4, 64, 64)
        start = time.perf_counter()
        with torch.inference_mode():
            for timestep in scheduler.timesteps:
                negative, positive = scheduler.scale_model_input(torch.cat([x] * 2), timestep).chunk(2)
                x = scheduler.step(negative + 7.5 * (positive - negative), timestep, x, return_dict=False)[0]
        return Amount((time.perf_counter() - start) / STEPS * 1000, "ms")

    return call


def rows(quick: bool) -> Iterator[Row]:
    """sampler-overhead."""
    names = (
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("Euler a", "euler_ancestral", "normal"),
        ("UniPC", "uni_pc", "normal"),
    )
    sides = [Side(f"ours, {title}", partial(ours, name, schedule)) for title, name, schedule in names]
    yield Row(
        "sampler-overhead",
        "Sampler and guidance a step, network excluded (64x64 latent)",
        (*sides, Side("diffusers, DPM++ 2M Karras", diffusers)),
        repeats=3 if quick else 9,
        goals=tuple(Goal(side.name, most=0.5) for side in sides),
    )
