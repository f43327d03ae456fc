"""What a teacher paints, remembered: its way from noise to picture at a few places, for a student to repeat.

Legend: N ways, K jumps of the student, B batch, c h w latent shape.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...diffusion.samplers import sample
from ...errors import InvalidRequest
from ...types import Denoiser, Schedule
from ...weights.containers.atomic import atomic_file

CHUNK = 16


def places(schedule: Schedule, jumps: int) -> Tensor:
    """Noise levels [K + 1] of a student's jumps: evenly spaced timesteps from the last one on, then 0."""
    last = schedule.timestep(torch.tensor(schedule.sigma_max))
    grid = torch.linspace(float(last), 0.0, jumps + 1)[:-1]
    return torch.cat([schedule.sigma(grid), torch.zeros(1)]).float()


def follow(denoise: Denoiser, noise: Tensor, schedule: Schedule, jumps: int, between: int) -> Tensor:
    """The teacher's state [B,K+1,c,h,w] at each of `places`, with `between` steps of DPM-Solver++(2M) to each jump."""
    sigmas = places(schedule, jumps * between).to(noise.device)
    x = noise * sigmas[0]
    states = [x]
    for step in sample("dpmpp_2m", denoise, x, sigmas, schedule):
        if (step.index + 1) % between == 0:
            states.append(step.x)
    return torch.stack(states, dim=1)


def remembered(folder: Path, count: int, shape: tuple[int, ...], make: Callable[[range], Tensor]) -> Tensor:
    """Ways [N,K+1,c,h,w], float16, from files of `CHUNK` in `folder`; `make` paints those of a range that are missing.

    What was painted before an interruption is kept. InvalidRequest where a file holds something of another shape.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, count, CHUNK):
        path = folder / f"{start:06d}.npy"
        if not path.is_file():
            ways = make(range(start, start + CHUNK)).cpu().half().numpy()
            with atomic_file(path) as file:
                np.save(file, ways)
        part = np.load(path)
        if part.shape != (CHUNK, *shape):
            raise InvalidRequest(f"{path} holds {part.shape}, expected {(CHUNK, *shape)}; remove the folder {folder}")
        parts.append(torch.from_numpy(part))
    return torch.cat(parts)[:count]
