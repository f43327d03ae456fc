"""What SDXL has besides the text: the sizes that its network is given, and a second model, the refiner.

Podell et al. 2023, "SDXL". Micro-conditioning (section 2.2 and appendix): each number on the picture's size becomes
Fourier features, like a timestep, and they follow the pooled text in the vector, so that small and cropped training
pictures could be used without their look leaking into what is made. The refiner is given an aesthetic score in place
of the target size. It makes the last steps of a run, in latents (section 2.5); the idea of one expert for each stretch
of noise levels is of Balaji et al. 2022, "eDiff-I". Both models see the same run of the sampler, so that what it
remembers of past steps is kept.

Shapes: B batch, P pooled width, V vector width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...diffusion.denoise import by_step
from ...diffusion.schedule import FlowSchedule
from ...errors import InvalidRequest
from ...nn.embeddings import timestep_embedding
from ...types import Conditioning, Denoiser

if TYPE_CHECKING:
    from ..models import StableDiffusion

_ROUNDING = 1e-9


def with_size(conditioning: Conditioning, numbers: list[float], vector_dim: int) -> Conditioning:
    """The conditioning with the features of `numbers` after the pooled text [B,P] in its vector, [B,V].

    A vector that is complete already stays as it is. InvalidRequest where there is none, or its width does not fit.
    """
    vector = conditioning.vector
    if vector is None:
        raise InvalidRequest("the conditioning has no vector; expected the pooled text that this model needs")
    if vector.shape[-1] == vector_dim:
        return conditioning
    width, rest = divmod(vector_dim - vector.shape[-1], len(numbers))
    if rest or width <= 0 or width % 2:
        raise InvalidRequest(
            f"the conditioning's vector has {vector.shape[-1]} numbers; {vector_dim} of the U-Net leave no room for "
            f"{len(numbers)} sizes"
        )
    given = torch.tensor(numbers, dtype=torch.float32, device=vector.device)
    features = timestep_embedding(given, width).flatten().to(vector.dtype)  # [numbers * width]
    return replace(conditioning, vector=torch.cat([vector, features.expand(len(vector), -1)], dim=-1))


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
            f"the refiner {refiner.name} is a {theirs.family}, which reads a picture too; expected one that reads "
            "text alone"
        )
    return refiner
