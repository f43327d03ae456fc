"""The refiner: another model that makes the last steps of a run, in latents.

Podell et al. 2023, "SDXL", section 2.5; the idea of one expert for each stretch of noise levels is of Balaji et al.
2022, "eDiff-I". Both models see the same run of the sampler, so that what it remembers of past steps is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ...diffusion.denoise import by_step
from ...diffusion.schedule import FlowSchedule
from ...errors import InvalidRequest
from ...types import Denoiser

if TYPE_CHECKING:
    from ..models import StableDiffusion

_ROUNDING = 1e-9


def hand_over(base: Denoiser, refiner: Denoiser, switch: float, sigmas: Tensor) -> Denoiser:
    """The base model for the first `switch` of the steps, and the refiner for the rest; sigmas [steps + 1]."""
    steps = len(sigmas) - 1
    before = sum(index / steps < switch - _ROUNDING for index in range(steps))
    if before in (0, steps):
        return base if before else refiner
    return by_step([(before, base), (steps, refiner)], sigmas)


def check_refiner(model: StableDiffusion, refiner: StableDiffusion) -> StableDiffusion:
    """The refiner; InvalidRequest where its latents are not those of `model`, or it reads more than text."""
    ours, theirs = model.parts, refiner.parts
    spaces = [(each.latents.channels, each.latents.downscale, each.latents.scale, each.latents.shift,
               isinstance(each.schedule, FlowSchedule)) for each in (ours, theirs)]  # fmt: skip
    if spaces[0] != spaces[1]:
        raise InvalidRequest(
            f"the refiner {refiner.name} ({theirs.family}) has other latents than {model.name} ({ours.family}); "
            "expected a model of the same kind"
        )
    if theirs.unet.config.in_channels != theirs.latents.channels:
        raise InvalidRequest(
            f"the refiner {refiner.name} is a {theirs.family}, which is told a picture too; expected one that reads "
            "text alone"
        )
    return refiner
