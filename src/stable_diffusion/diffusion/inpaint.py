"""Denoisers that repaint a part of a known latent: by a hard mask, and by a soft one.

Shapes: B batch, C channels, H W latent size; masks [1 or B, 1 or C, H, W] are 1 where the latent is repainted and 0
where it is kept; sigma [B].
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidRequest
from ..types import Denoiser, Estimate, Schedule
from .schedule import per_image


def inpainting(denoise: Denoiser, latent: Tensor, mask: Tensor, noise: Tensor, schedule: Schedule) -> Denoiser:
    """Repaint only where `mask` is 1: the known latent is put back, at the current noise level, before each call.

    latent [B,C,H,W] clean; mask in [0, 1]; noise [B,C,H,W] the start noise. Where the mask is 0 the answer is the
    latent itself, so that every sampler ends on it (after Lugmayr et al. 2022, arXiv:2201.09865, section 4.1).
    InvalidRequest where the mask is out of range or the shapes do not fit.
    """
    _check_mask(mask)
    fits = mask.ndim == latent.ndim and all(m in (1, n) for m, n in zip(mask.shape, latent.shape, strict=True))
    if not fits or noise.shape != latent.shape:
        shapes = [tuple(t.shape) for t in (latent, mask, noise)]
        raise InvalidRequest(f"latent, mask and noise of shapes {shapes} do not fit one another")

    def inpaint(x: Tensor, sigma: Tensor) -> Estimate:
        known = _noised(latent, noise, sigma, schedule)
        found = denoise(x * mask + known * (1 - mask), sigma)
        return found.map(lambda x0: x0 * mask + latent * (1 - mask))

    return inpaint


def soft_inpainting(
    denoise: Denoiser, latent: Tensor, mask: Tensor, noise: Tensor, schedule: Schedule, sigmas: Tensor
) -> Denoiser:
    """Each place is repainted with the strength that the mask has there: 0 keeps it, 1 repaints it at every step.

    latent, noise [B,C,H,W], mask [1 or B,1,H,W] in [0, 1], sigmas [steps + 1] the levels of the run. A place with mask
    m is held at the noised latent until the share of steps that is left is m, and free from then on: what img2img would
    do there at strength m (Levin & Fried 2023, "Differential diffusion: giving each pixel its strength", algorithm 1).
    InvalidRequest where the mask is out of range.
    """
    _check_mask(mask)
    levels = sigmas.to(mask.device, torch.float64)
    steps = len(levels) - 1

    def inpaint(x: Tensor, sigma: Tensor) -> Estimate:
        passed = (levels[None] >= sigma.to(levels)[:, None] * (1 - 1e-6)).sum(dim=1) - 1  # [B], the step
        left = per_image((steps - passed.clamp(min=0)).to(mask.dtype), x)
        free = (mask * steps >= left - 0.5) & (mask > 0)  # where the mask lets go at this level
        found = denoise(torch.where(free, x, _noised(latent, noise, sigma, schedule)), sigma)
        return found.map(lambda x0: torch.where(free, x0, latent))

    return inpaint


def _noised(latent: Tensor, noise: Tensor, sigma: Tensor, schedule: Schedule) -> Tensor:
    """The latent [B,C,H,W] with this noise at level sigma [B]."""
    return per_image(schedule.alpha(sigma), latent) * latent + per_image(sigma, latent) * noise


def _check_mask(mask: Tensor) -> None:
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise InvalidRequest("mask: expected numbers from 0 (keep) to 1 (repaint)")
