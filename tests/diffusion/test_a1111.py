"""Noise levels and step counts of A1111, against lists worked out by hand."""

from __future__ import annotations

import pytest
import torch

from stable_diffusion.diffusion.a1111 import a1111_sigmas, a1111_truncate
from stable_diffusion.diffusion.schedule import ddpm_schedule
from stable_diffusion.diffusion.sigmas import GRIDS, schedule_sigmas, truncate
from stable_diffusion.errors import InvalidRequest

SD = ddpm_schedule()


def timesteps(sigmas: torch.Tensor | None) -> list[float]:
    assert sigmas is not None and sigmas.dtype == torch.float32 and bool((sigmas.diff() < 0).all())
    return SD.timestep(sigmas[sigmas > 0].double()).tolist()


@pytest.mark.parametrize("steps", [1, 4, 10, 20, 30])
def test_sgm_uniform_is_even_and_not_rounded(steps: int) -> None:
    found = a1111_sigmas("sgm_uniform", SD, steps, "euler")
    assert timesteps(found) == pytest.approx([999 * (1 - k / steps) for k in range(steps)], abs=2e-3)
    assert found is not None and len(found) == steps + 1 and float(found[-1]) == 0
    if steps == 10:
        assert SD.timestep(schedule_sigmas("sgm_uniform", SD, 10).double())[1] == 899 != pytest.approx(899.1, abs=1e-3)


@pytest.mark.parametrize(("steps", "first", "count"), [(20, 951, 20), (30, 991, 31), (7, 995, 8)])
@pytest.mark.parametrize("sampler", ["ddim", "plms", "euler"])
def test_ddim_timesteps_go_on_to_the_last_that_is_trained(sampler: str, steps: int, first: int, count: int) -> None:
    found = a1111_sigmas("ddim_uniform", SD, steps, sampler)
    expected = [1 + k * (1000 // steps) for k in range(count)][::-1]
    assert timesteps(found) == expected and expected[0] == first
    assert found is not None and (float(found[-1]) == 0) == (sampler == "euler")


def test_all_others_are_the_same() -> None:
    assert {name for name in GRIDS if a1111_sigmas(name, SD, 10, "euler") is not None} == {
        "sgm_uniform",
        "ddim_uniform",
    }


@pytest.mark.parametrize(("strength", "made"), [(0.75, 16), (0.5, 11), (0.3, 7), (0.04, 1), (0.999, 20), (1.0, 20)])
def test_img2img_makes_a_step_more(strength: float, made: int) -> None:
    sigmas = schedule_sigmas("karras", SD, 20)
    kept = a1111_truncate(sigmas, 20, strength)
    assert len(kept) - 1 == made and torch.equal(kept, sigmas[-made - 1 :])
    assert len(truncate(sigmas, strength)) - 1 == max(1, int(20 * strength))


@pytest.mark.parametrize(("strength", "made"), [(0.75, 14), (0.5, 9), (0.04, 1), (1.0, 18)])
def test_img2img_of_ddim_makes_one_less(strength: float, made: int) -> None:
    sigmas = a1111_sigmas("ddim_uniform", SD, 20, "ddim")
    assert sigmas is not None and len(a1111_truncate(sigmas, 20, strength)) - 1 == made


@pytest.mark.parametrize("strength", [0.0, 1.1, float("nan")])
def test_a_strength_that_is_none_is_refused(strength: float) -> None:
    with pytest.raises(InvalidRequest, match="strength"):
        a1111_truncate(schedule_sigmas("karras", SD, 20), 20, strength)
