"""Soft masks: each place is repainted for the share of the steps that the mask says."""

from __future__ import annotations

import pytest
import torch
from closed_form import SCHEDULES
from torch import Tensor

from stable_diffusion.diffusion.inpaint import soft_inpainting
from stable_diffusion.diffusion.schedule import start_state
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline.tasks import masks
from stable_diffusion.types import Estimate

LATENT = torch.randn(1, 2, 1, 5, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(1, 2, 1, 5, generator=torch.Generator().manual_seed(1))
SOFT = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).view(1, 1, 1, 5)


def test_a_soft_latent_mask_is_the_mean_and_shows_all_from_an_eighth_on() -> None:
    mask = torch.tensor([[0.0, 1, 0.5, 0.5], [1, 0, 0, 0]]).view(1, 1, 2, 4)
    assert masks.soft_latent_mask(mask, 2).flatten().tolist() == [0.5, 0.25]
    assert masks.soft_edge(torch.tensor([0, 1 / 16, 1 / 8, 1])).tolist() == [0, 0.5, 1, 1]


class _Paints:
    """Answers 9 with guidance and 7 without; keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor, sigma: Tensor) -> Estimate:
        self.seen.append(x)
        return Estimate(torch.full_like(x, 9.0), torch.full_like(x, 7.0))


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_a_soft_mask_is_the_share_of_steps_that_repaint(kind: str) -> None:
    schedule, base = SCHEDULES[kind], _Paints()
    sigmas = torch.tensor([0.9, 0.8, 0.7, 0.5, 0.4, 0.2, 0.1, 0.05, 0.0])
    soft = soft_inpainting(base, LATENT, SOFT, NOISE, schedule, sigmas)
    x, painted = torch.full_like(LATENT, 3.0), torch.zeros(5)
    for sigma in sigmas[:-1, None]:
        x0, unguided = soft(x, sigma)
        free = x0[0, 0, 0] == 9
        assert torch.equal(x0[..., ~free], LATENT[..., ~free])
        assert torch.equal(unguided, torch.where(free, 7.0, LATENT))
        known = start_state(schedule, NOISE, float(sigma), LATENT)
        torch.testing.assert_close(base.seen[-1], torch.where(free, x, known))
        painted += free
    assert painted.tolist() == [0, 2, 4, 6, 8]


def test_each_picture_of_a_batch_and_levels_between_steps_have_their_own_place() -> None:
    latent, noise = LATENT.expand(2, -1, -1, -1), NOISE.expand(2, -1, -1, -1)
    sigmas = torch.tensor([0.8, 0.6, 0.4, 0.2, 0.0])
    soft = soft_inpainting(lambda x, s: Estimate.plain(x * 0 + 9), latent, SOFT, noise, SCHEDULES["flow"], sigmas)
    free = soft(latent, torch.tensor([0.7, 0.2])).x0[:, 0, 0] == 9  # in the first step and in the last
    assert free.tolist() == [[False] * 4 + [True], [False] + [True] * 4]
    with pytest.raises(InvalidRequest, match="from 0"):
        soft_inpainting(soft, latent, SOFT * 2, noise, SCHEDULES["flow"], sigmas)
