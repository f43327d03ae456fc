"""Handing over to a refiner: another model paints the last steps of the run, in latents.

Podell et al. 2023, "SDXL", section 2.5; the idea of one expert for each stretch of noise levels is of Balaji et al.
2022, "eDiff-I". Both models see the same run of the sampler, so that what it remembers of past steps is kept.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...diffusion.denoise import by_step
from ...diffusion.schedule import FlowSchedule
from ...errors import InvalidRequest
from ...text.prompt_schedule import Timeline
from ...types import Denoiser

if TYPE_CHECKING:
    from ..models import StableDiffusion
    from ..process import DenoisingProcess

_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Handover:
    """The second model's process and its prompts, and the share of a run's steps after which it goes on."""

    process: DenoisingProcess
    prompt: Timeline
    negative: Timeline
    switch: float

    def after(self, first: Denoiser, sigmas: Tensor, scale: float, **settings: Any) -> Denoiser:
        """`first` for step i of n where i / n < switch, the second model for all others; sigmas [n + 1]."""
        steps = len(sigmas) - 1
        before = sum(index / steps < self.switch - _ROUNDING for index in range(steps))
        if before == steps:
            return first
        second = self.process.led(self.prompt, self.negative, sigmas, scale, **settings)
        return second if before == 0 else by_step([(before, first), (steps, second)], sigmas)


def refining_model(model: StableDiffusion, path_or_name: str) -> StableDiffusion:
    """The model that goes on where `model` stops, on its device and in its precision; the last one stays in memory.

    Raises ModelFileError, and InvalidRequest where its latents are others or it is told more than text.
    """
    from ..models import find_model

    path = find_model(path_or_name)
    stat = path.stat()
    second = _loaded(path, stat.st_mtime_ns, stat.st_size, model.device, model.dtype)
    ours, theirs = model.parts, second.parts
    spaces = [(each.latents.channels, each.latents.downscale, each.latents.scale, each.latents.shift,
               isinstance(each.schedule, FlowSchedule)) for each in (ours, theirs)]  # fmt: skip
    if spaces[0] != spaces[1]:
        raise InvalidRequest(
            f"the refiner {second.name} ({theirs.family}) has other latents than {model.name} ({ours.family}); "
            "expected a model of the same kind"
        )
    if theirs.unet.config.in_channels != theirs.latents.channels:
        raise InvalidRequest(
            f"the refiner {second.name} is a {theirs.family}, which is told a picture too; expected one that reads "
            "text alone"
        )
    return second


@functools.lru_cache(maxsize=1)
def _loaded(path: Path, changed: int, size: int, device: torch.device, dtype: torch.dtype) -> StableDiffusion:
    """`changed` and `size` are part of the key, so that a file that was replaced is read anew."""
    from ...weights.load import load_parts
    from ..models import StableDiffusion

    return StableDiffusion.from_parts(load_parts(path, device=device, dtype=dtype))
