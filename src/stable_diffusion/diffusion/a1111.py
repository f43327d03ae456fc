"""Noise levels and step counts where A1111's web UI has others than diffusers, for pictures that are made its way.

What differs is listed in docs/samplers.md. Flow models have no such difference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidRequest
from .schedule import DiscreteSchedule

ON_TIMESTEPS = ("ddim", "plms")
"""Samplers that walk from timestep to timestep and stop on the lowest, which they never ask for."""


def a1111_sigmas(schedule_name: str, schedule: DiscreteSchedule, steps: int, sampler: str) -> Tensor | None:
    """Levels of a run, float32, descending; None where A1111's are those of `sigmas.schedule_sigmas`.

    sgm_uniform   even fractions of the trained time, which are not rounded to whole timesteps
    ddim_uniform  every timestep 1, 1 + r, 1 + 2 r ... below N, with r = N // steps: more than `steps` of them where N
                  is no multiple of `steps`. For DDIM and PLMS they end on timestep 1, so that there is a step less
                  than levels; for others on 0.
    """
    last = schedule.timesteps - 1
    if schedule_name == "sgm_uniform":
        levels = schedule.sigma(last * (1 - torch.arange(steps, dtype=torch.float64) / steps))
    elif schedule_name == "ddim_uniform":
        timesteps = torch.arange(1, last + 1, max(1, schedule.timesteps // steps), dtype=torch.float64)
        levels = schedule.sigma(timesteps.flip(0))
        if sampler in ON_TIMESTEPS and len(levels) > 1:
            return levels.to(torch.float32)
    else:
        return None
    return torch.cat([levels, levels.new_zeros(1)]).to(torch.float32)


def a1111_truncate(sigmas: Tensor, steps: int, strength: float) -> Tensor:
    """The levels that img2img visits: int(min(strength, 0.999) steps) + 1 steps, one more than diffusers makes.

    DDIM and PLMS, whose levels do not end on 0, make int(min(strength, 0.999) steps) - 1, at least one.
    """
    if not 0 < strength <= 1:
        raise InvalidRequest(f"strength {strength}: expected a number above 0 and at most 1")
    made = int(min(strength, 0.999) * steps) + (1 if float(sigmas[-1]) == 0 else -1)
    return sigmas[len(sigmas) - 1 - max(1, min(made, len(sigmas) - 1)) :]
