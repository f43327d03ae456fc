"""CFG++: the guided estimate says where the picture is, the unguided one where the noise is.

Chung et al. 2024 (arXiv:2406.08070), algorithm 2. Guidance there is an interpolation, so that scales around 1 are what
7 is to ordinary guidance. A denoiser without an unguided estimate (no `pair`, see `types.PairDenoiser`) counts as its
own, and then these samplers are `euler`, `euler_ancestral` and `ddim`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...types import Denoiser, NoiseSource, Schedule, Step
from .base import Level, Run, ancestral, prepare, renoise, transfer


def euler_cfg_pp(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
) -> Iterator[Step]:
    """Euler's step along the unguided noise from the guided picture, order 1, one call a step."""
    return _first_order(prepare(denoise, x, sigmas, schedule, noise), x, 0.0, 1.0)


def euler_ancestral_cfg_pp(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """`euler_cfg_pp` with ancestral noise; eta 0 is without."""
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _first_order(run, x, eta, s_noise)


def ddim_cfg_pp(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DDIM with CFG++, as in the paper; deterministic at eta 0."""
    run = prepare(denoise, x, sigmas, schedule, noise, stochastic=eta * s_noise > 0, eta=eta, s_noise=s_noise)
    return _first_order(run, x, eta, s_noise)


@torch.no_grad()
def _first_order(run: Run, x: Tensor, eta: float, s_noise: float) -> Iterator[Step]:
    for index in range(run.steps):
        begin, end = run.levels[index], run.levels[index + 1]
        denoised, unguided = run.ask_both(x, begin)
        down, std = ancestral(run, begin, end, eta)
        x = renoise(run, _fall(x, denoised, unguided, begin, down), begin, down, end, std * s_noise)
        yield run.step(index, x, denoised)


def _fall(x: Tensor, denoised: Tensor, unguided: Tensor, begin: Level, end: Level) -> Tensor:
    """a' x0_guided + s' noise, where noise = (x - a x0_unguided) / s."""
    return transfer(x, unguided, begin, end) + (denoised - unguided) * end.alpha
