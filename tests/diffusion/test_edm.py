"""Continuous noise levels of EDM: preconditioning and levels are those of diffusers, and every sampler runs on them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from closed_form import Gaussian
from diffusers import EDMEulerScheduler

from stable_diffusion.diffusion.denoise import NetworkDenoiser
from stable_diffusion.diffusion.prediction import from_x0, target, to_x0
from stable_diffusion.diffusion.samplers import SOLVERS, noise_source, sample
from stable_diffusion.diffusion.schedule import EDMSchedule, add_gaussian_noise, schedule_from_config, start_state
from stable_diffusion.diffusion.sigmas import schedule_sigmas
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.types import Conditioning

PLAYGROUND = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}
COSXL = {"sigma_min": 0.002, "sigma_max": 120.0, "sigma_data": 1.0}


@pytest.mark.parametrize("data", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("ours", "theirs"), [("edm", "epsilon"), ("v", "v_prediction")])
def test_preconditioning_is_that_of_diffusers(ours: Any, theirs: str, data: float) -> None:
    schedule = EDMSchedule(0.002, 80.0, data)
    reference = EDMEulerScheduler(sigma_data=data, prediction_type=theirs)
    x, output = torch.randn(2, 5, 4, 3, 3, dtype=torch.float64)
    sigma = torch.tensor([0.002, 0.1, 1.0, 7.0, 80.0], dtype=torch.float64)
    seen: dict[str, torch.Tensor] = {}

    def network(given: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor, **more: Any) -> torch.Tensor:
        seen.update(x=given, timestep=timestep)
        return output

    wrapped = NetworkDenoiser(network=network, schedule=schedule, prediction=ours)
    x0 = wrapped(x, sigma, Conditioning(tokens=torch.zeros(5, 1, 1)))
    for k, level in enumerate(sigma):
        torch.testing.assert_close(x0[k], reference.precondition_outputs(x[k], output[k], level))
        torch.testing.assert_close(seen["x"][k], reference.precondition_inputs(x[k], level))
        torch.testing.assert_close(seen["timestep"][k], reference.precondition_noise(level))
    torch.testing.assert_close(from_x0(ours, x0, x, sigma, schedule), output)
    noise = torch.randn_like(x0)
    noisy = add_gaussian_noise(schedule, x0, sigma, noise)
    answer = target(ours, x0, noise, sigma, schedule)
    torch.testing.assert_close(to_x0(ours, answer, noisy, sigma, schedule), x0)


@pytest.mark.parametrize("name", ["karras", "exponential"])
@pytest.mark.parametrize("words", [PLAYGROUND, COSXL], ids=["playground", "cosxl"])
@pytest.mark.parametrize("steps", [2, 5, 20, 50])
def test_levels_are_those_of_diffusers(name: str, words: dict[str, Any], steps: int) -> None:
    reference = EDMEulerScheduler(**words, sigma_schedule=name)  # type: ignore[arg-type]
    reference.set_timesteps(steps)
    ours = schedule_sigmas(name, EDMSchedule(words["sigma_min"], words["sigma_max"], words["sigma_data"]), steps)
    torch.testing.assert_close(ours, reference.sigmas, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["normal", "simple", "sgm_uniform", "beta", "kl_optimal", "ddim_uniform"])
def test_other_spacings_stay_between_the_ends(name: str) -> None:
    sigmas = schedule_sigmas(name, EDMSchedule(), 12)
    assert float(sigmas[0]) <= 80.001 and float(sigmas[-2]) >= 0.00199 and float(sigmas[-1]) == 0


def test_levels_and_timesteps_are_inverse_and_written_down() -> None:
    schedule = EDMSchedule(0.01, 120.0, 1.0, 500)
    times = torch.linspace(0, 499, 37, dtype=torch.float64)
    torch.testing.assert_close(schedule.timestep(schedule.sigma(times)), times, rtol=0, atol=1e-3)
    again = schedule_from_config(schedule.to_config())
    assert isinstance(again, EDMSchedule) and again.to_config() == schedule.to_config()
    assert (again.sigma_min, again.sigma_max, again.sigma_data) == (0.01, 120.0, 1.0)


@pytest.mark.parametrize(
    "numbers", [(80.0, 0.002, 0.5), (0.0, 80.0, 0.5), (0.002, float("inf"), 0.5), ("a", 80.0, 0.5)]
)
def test_levels_that_are_none_are_refused(numbers: Any) -> None:
    with pytest.raises(InvalidRequest, match="expected"):
        EDMSchedule(*numbers)


@pytest.mark.parametrize("spacing", ["karras", "exponential"])
@pytest.mark.parametrize("name", list(SOLVERS))
def test_every_sampler_runs_on_these_levels(name: str, spacing: str) -> None:
    """Of data that are Gaussian the ideal denoiser is known, and so is the mean of what comes out. The spread is tested
    with those of the other schedules."""
    data = EDMSchedule(**COSXL)
    mean, std = torch.full((1, 4, 1, 1), 0.4, dtype=torch.float64), torch.full((1, 4, 1, 1), 0.5, dtype=torch.float64)
    problem = Gaussian(data, mean, std)  # type: ignore[arg-type]
    sigmas = schedule_sigmas(spacing, data, 40)
    source = noise_source(SOLVERS[name], list(range(24)), (4, 8, 8), data)
    start = start_state(data, source.start(), sigmas[0])
    *_, last = sample(name, problem.denoise, start, sigmas, data, noise=source)
    assert bool(torch.isfinite(last.x).all())
    assert float(last.x.mean()) == pytest.approx(0.4, abs=0.05)
