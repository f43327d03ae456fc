"""The samplers: functions that check their input and return a generator of `Step`, each found by its id.

source = noise_source(solver("dpmpp_2m"), seeds, (C, H, W), schedule)
for step in sample("dpmpp_2m", denoise, x, sigmas, schedule, noise=source, **options): ...

What else a sampler is called, as A1111, k-diffusion and diffusers name it, stands in `request/names.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import unknown_choice
from ...types import Denoiser, NoiseSource, PlainDenoiser, Schedule, Step
from ..noise import BrownianNoise, NoiseKind, PerImageNoise, noise_streams
from . import ancestral, dpm_solver, multistep, one_step, sde
from .registry import SOLVERS, Solver

__all__ = [
    "SAMPLERS",
    "SOLVERS",
    "Solver",
    "ancestral",
    "dpm_solver",
    "multistep",
    "noise_source",
    "one_step",
    "sample",
    "sde",
    "solver",
]

SAMPLERS = SOLVERS
"""The former name of `SOLVERS`."""


def solver(id: str) -> Solver:
    """The sampler of this id; InvalidRequest, with the nearest one, where there is none."""
    if id not in SOLVERS:
        raise unknown_choice("sampler", id, SOLVERS)
    return SOLVERS[id]


def noise_source(
    sampler: Solver,
    seeds: Sequence[int],
    shape: tuple[int, ...],
    schedule: Schedule,
    *,
    kind: NoiseKind = "cpu",
    device: torch.device | str = "cpu",
    seed_delta: int = 0,
) -> PerImageNoise | BrownianNoise:
    """The noise that this sampler is meant for. The start noise is the same for both kinds.

    kind        the generator: see `noise`; `device` is that of "device"
    seed_delta  added to the seeds for all noise after the start (A1111's "eta noise seed delta", ENSD)
    """
    streams = noise_streams(seeds, shape, kind, device, seed_delta)
    return BrownianNoise(seeds, shape, schedule, streams) if sampler.brownian else PerImageNoise(seeds, shape, streams)


def sample(
    sampler: str | Solver,
    denoise: Denoiser | PlainDenoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    **options: Any,
) -> Iterator[Step]:
    """The steps of one run of a sampler, or of the one with this id: see `Solver.__call__`."""
    found = solver(sampler) if isinstance(sampler, str) else sampler
    return found(denoise, x, sigmas, schedule, noise=noise, **options)
