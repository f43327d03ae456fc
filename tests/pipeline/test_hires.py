"""The second pass: sizes, steps of its schedule, and latents and pictures enlarged."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stable_diffusion.diffusion.sigmas import truncate
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.pipeline.tasks.hires import (
    MODES,
    _valid,
    enlarged,
    hires_size,
    schedule_steps,
    share_of,
)
from stable_diffusion.request.settings import FLAT, UPSCALERS, Hires, Wrap


class _Decoder:
    def tensor(self, latent: Tensor) -> Tensor:
        return F.interpolate(latent, scale_factor=4, mode="nearest")


class _Model:
    """An autoencoder whose latent is the mean of every square of 4 x 4 pixels."""

    factor = 4
    image_decoder = _Decoder()

    def image_encoder(self, picture: Tensor) -> Tensor:
        assert float(picture.abs().max()) <= 1
        assert picture.shape[1] != 4 or bool((picture[:, :3] <= picture[:, 3:] + 1e-6).all())
        return F.avg_pool2d(picture, 4)


def _enlarged(latent: Tensor, size: tuple[int, int], upscaler: str, wrap: Wrap = FLAT) -> Tensor:
    return enlarged(cast(StableDiffusion, cast(Any, _Model())), latent, size, upscaler, wrap)


@pytest.mark.parametrize("name", UPSCALERS)
def test_an_upscaler_is_found_in_any_case(name: str) -> None:
    assert Hires(upscaler=name.upper()).upscaler == Hires(upscaler=f" {name.lower()} ").upscaler == name


def test_every_upscaler_is_done_and_only_those() -> None:
    assert (*MODES, "Lanczos", "Nearest") == UPSCALERS


def test_an_unknown_upscaler_is_one_sentence_with_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match="unknown hires upscaler 'lanczoss': did you mean 'Lanczos'"):
        Hires(upscaler="lanczoss")


def test_both_sides_grow_and_stay_multiples_of_the_step() -> None:
    assert hires_size(512, 768, 2, 8) == (1024, 1536)
    assert hires_size(512, 768, 1.3, 8) == (664, 992)  # 665.6 and 998.4, cut as A1111 cuts them
    assert hires_size(512, 640, 1.7, 8) == (864, 1088)  # 870.4 and 1088
    assert hires_size(640, 512, 768 / 640, 8) == (768, 608)
    assert hires_size(512, 512, 1, 8) == (512, 512)
    assert hires_size(512, 512, 1.001, 64) == (512, 512)
    assert hires_size(8, 8, 1.1, 64) == (64, 64)


@pytest.mark.parametrize("steps", [1, 9, 11, 20, 29, 150])
@pytest.mark.parametrize("strength", [0.15, 0.29, 0.3, 0.58, 0.7, 0.999, 1.0])
def test_as_many_steps_are_made_as_asked_for(steps: int, strength: float) -> None:
    total = schedule_steps(steps, strength, 1000)
    assert len(truncate(torch.arange(total + 1.0).flip(0), share_of(steps, total))) - 1 == steps
    assert total <= steps / strength < total + 1


def test_the_schedule_is_as_long_as_that_of_a1111_and_comfyui() -> None:
    asked = [(20, 0.7), (20, 0.5), (15, 0.4), (20, 0.35), (20, 1.0)]
    assert [schedule_steps(*each, 1000) for each in asked] == [28, 40, 37, 57, 20]


def test_a_schedule_that_would_be_too_long_is_refused() -> None:
    assert schedule_steps(100, 0.1, 1000) == 1000
    for strength in (0.0999, 1e-300):
        with pytest.raises(InvalidRequest, match=r"100 hires steps .* at least 0\.1"):
            schedule_steps(100, strength, 1000)


def test_at_strength_zero_there_is_nothing_to_lengthen() -> None:
    assert schedule_steps(20, 0.0, 1000) == 20


@pytest.mark.parametrize("upscaler", UPSCALERS)
def test_a_latent_of_one_colour_keeps_it(upscaler: str) -> None:
    latent = torch.tensor([0.5, -0.25, 0.75]).view(1, 3, 1, 1).expand(2, 3, 4, 6)
    made = _enlarged(latent, (36, 32), upscaler)
    assert made.shape == (2, 3, 8, 9)
    assert torch.allclose(made, latent[..., :1, :1].expand(2, 3, 8, 9), atol=1e-5)


def test_every_upscaler_interpolates_in_its_own_way() -> None:
    latent = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    made = {name: _enlarged(latent, (32, 32), name) for name in UPSCALERS}
    for name, (mode, smooth) in MODES.items():
        assert torch.equal(made[name], F.interpolate(latent, scale_factor=2, mode=mode, antialias=smooth))
    assert torch.allclose(made["Nearest"], made["Latent (nearest-exact)"], atol=1e-5)
    assert torch.equal(made["Latent (nearest-exact)"], latent.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert torch.allclose(F.avg_pool2d(made["Lanczos"], 2), latent, atol=0.15)
    assert all(not torch.allclose(made["Lanczos"], made[name], atol=1e-3) for name in MODES)


@pytest.mark.parametrize("upscaler", UPSCALERS)
def test_contrasts_are_enlarged_into_pictures_that_can_be_encoded(upscaler: str) -> None:
    for channels, most in ((3, 1.0), (4, 0.5)):
        latent = torch.tensor([-1, most, -1]).repeat_interleave(2).expand(1, channels, 6, 6).clone()
        latent[:, 3:] = most  # alpha, which no colour may exceed
        assert _enlarged(latent, (40, 40), upscaler).shape == (1, channels, 10, 10)


@pytest.mark.parametrize("upscaler", UPSCALERS)
def test_edges_that_meet_still_meet(upscaler: str) -> None:
    latent = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    wrap = Wrap(x=True, y=True)
    made = _enlarged(latent, (32, 32), upscaler, wrap)
    rolled = _enlarged(latent.roll((1, 2), (-2, -1)), (32, 32), upscaler, wrap)
    assert torch.allclose(rolled, made.roll((2, 4), (-2, -1)), atol=1e-5)


def test_a_picture_with_alpha_stays_premultiplied_after_a_filter_that_overshoots() -> None:
    picture = torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    alpha = picture[:, 3:]
    assert bool((picture[:, :3] > alpha).any())
    unit = _valid(picture * 2 - 1) / 2 + 0.5
    assert torch.allclose(unit[:, 3:], alpha, atol=1e-6)
    assert torch.allclose(unit[:, :3], torch.minimum(picture[:, :3], alpha), atol=1e-5)
    opaque = picture[:, :3] * 2 - 1
    assert _valid(opaque) is opaque
