"""Noise schedules, the forward process, and predictions."""

from __future__ import annotations

import json
import math

import pytest
import torch
from closed_form import SCHEDULES

from stable_diffusion.diffusion.prediction import PREDICTIONS, from_x0, output_gain, resolve_prediction, target, to_x0
from stable_diffusion.diffusion.schedule import (
    DiscreteSchedule,
    FlowSchedule,
    add_gaussian_noise,
    ddpm_schedule,
    input_scale,
    schedule_from_config,
    start_state,
)
from stable_diffusion.errors import InvalidRequest


def test_stable_diffusion_levels() -> None:
    schedule = ddpm_schedule()
    assert schedule.sigma_min == pytest.approx(0.0291672, rel=1e-5)  # k-diffusion's values for the same model
    assert schedule.sigma_max == pytest.approx(14.6146, rel=1e-5)
    assert float(schedule.alphas_cumprod[-1]) == pytest.approx(0.0046601, rel=1e-4)


def test_linear_and_cosine_match_their_formulas() -> None:
    betas = [1e-4 + (0.02 - 1e-4) * t / 999 for t in range(1000)]
    abar = ddpm_schedule("linear", beta_start=1e-4, beta_end=0.02).alphas_cumprod
    assert float(abar[499]) == pytest.approx(math.prod(1 - b for b in betas[:500]), rel=1e-10)
    cosine = ddpm_schedule("cosine").alphas_cumprod
    survival = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 300)]
    assert float(cosine[299]) == pytest.approx(survival[1] / survival[0], rel=1e-10)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
def test_zero_terminal_snr_keeps_the_first_level_and_ends_on_the_documented_cap(kind: str) -> None:
    plain, rescaled = ddpm_schedule(kind), ddpm_schedule(kind, zero_terminal_snr=True)
    assert rescaled.sigma_min == pytest.approx(plain.sigma_min, rel=1e-9)
    assert rescaled.sigma_max <= math.sqrt(2**25) and rescaled.sigma_max > 4000
    root, shifted = plain.alphas_cumprod.sqrt(), rescaled.alphas_cumprod.sqrt()
    expected = (root[500] - root[-1]) * root[0] / (root[0] - root[-1])
    assert float(shifted[500]) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), ddpm_schedule("cosine", zero_terminal_snr=True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_timestep_and_sigma_are_inverse(schedule: DiscreteSchedule | FlowSchedule, dtype: torch.dtype) -> None:
    whole = torch.arange(1, 1000, dtype=dtype).reshape(37, 27)
    back = schedule.timestep(schedule.sigma(whole))
    assert back.dtype == dtype and back.shape == whole.shape
    if isinstance(schedule, DiscreteSchedule):
        assert torch.equal(back, whole)  # the network is told whole numbers at trained levels
    between = torch.tensor([0.37, 250.5, 998.9], dtype=dtype)
    torch.testing.assert_close(schedule.timestep(schedule.sigma(between)), between, rtol=1e-4, atol=1e-4)


def test_discrete_levels_are_clamped_and_log_interpolated() -> None:
    schedule = ddpm_schedule()
    assert schedule.timestep(torch.tensor([0.0, 1e-3, 1e3])).tolist() == [0, 0, 999]
    middle = float(schedule.sigma(torch.tensor(41.5, dtype=torch.float64)))
    assert middle == pytest.approx(math.sqrt(float(schedule.sigmas[41] * schedule.sigmas[42])), rel=1e-12)


def test_flow_shift() -> None:
    schedule = FlowSchedule(shift=3.0)
    assert schedule.shifted(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0.0, 0.75, 1.0]
    assert schedule.timestep(torch.tensor(0.25)).item() == 250
    assert schedule.sigma_min == pytest.approx(3e-3 / 1.002)


@pytest.mark.parametrize(
    "schedule",
    [
        ddpm_schedule("cosine", steps=50, zero_terminal_snr=True),
        ddpm_schedule("linear", beta_start=1e-4, beta_end=0.02),
        DiscreteSchedule(torch.tensor([0.9, 0.5, 0.1])),
        FlowSchedule(2.5, 500),
    ],
)
def test_config_round_trip_through_json(schedule: DiscreteSchedule | FlowSchedule) -> None:
    again = schedule_from_config(json.loads(json.dumps(schedule.to_config())))
    assert type(again) is type(schedule) and again.to_config() == schedule.to_config()
    levels = torch.tensor([0.2, 0.9])
    assert torch.equal(again.timestep(levels), schedule.timestep(levels))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ddpm_schedule("scaled-linear"), "did you mean 'scaled_linear'"),
        (lambda: ddpm_schedule(beta_start=float("nan")), "betas"),
        (lambda: ddpm_schedule(beta_start=0.5, beta_end=0.1), "betas"),
        (lambda: ddpm_schedule(steps=1), "at least 2"),
        (lambda: FlowSchedule(0.0), "flow shift"),
        (lambda: FlowSchedule(float("inf")), "flow shift"),
        (lambda: DiscreteSchedule(torch.tensor([0.5, 0.6])), "fall strictly"),
        (lambda: DiscreteSchedule(torch.tensor([0.5, float("nan")])), "finite"),
        (lambda: schedule_from_config({"kind": "flaw"}), "did you mean 'flow'"),
        (lambda: schedule_from_config({"kind": "flow", "speed": 1}), "speed"),
        (lambda: schedule_from_config({}), "unknown noise schedule"),
    ],
)
def test_bad_schedules(make, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        make()


def test_forward_process_in_both_coordinates() -> None:
    schedule = ddpm_schedule()
    x0, noise = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    steps = torch.tensor([10, 500, 999])
    abar = schedule.alphas_cumprod[steps].float().reshape(3, 1, 1, 1)
    classical = abar.sqrt() * x0 + (1 - abar).sqrt() * noise
    found = add_gaussian_noise(schedule, x0, steps, noise, by="timestep", variance_preserving=True)
    torch.testing.assert_close(found, classical, rtol=1e-5, atol=1e-6)
    exploding = add_gaussian_noise(schedule, x0, schedule.sigma(steps.float()), noise)
    torch.testing.assert_close(exploding * abar.sqrt(), classical, rtol=1e-5, atol=1e-5)


def test_forward_process_of_a_flow_is_a_straight_line() -> None:
    x0, noise = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    found = add_gaussian_noise(FlowSchedule(5.0), x0, 0.25, noise, variance_preserving=True)
    torch.testing.assert_close(found, 0.75 * x0 + 0.25 * noise)


@pytest.mark.parametrize("level", [float("nan"), float("inf"), -0.5])
def test_forward_process_refuses_bad_levels(level: float) -> None:
    with pytest.raises(InvalidRequest, match="noise level"):
        add_gaussian_noise(ddpm_schedule(), torch.zeros(1, 1, 2, 2), level, torch.zeros(1, 1, 2, 2))
    with pytest.raises(InvalidRequest, match="shape"):
        add_gaussian_noise(ddpm_schedule(), torch.zeros(1, 1, 2, 2), 1.0, torch.zeros(1, 1, 2, 3))


def test_start_states() -> None:
    noise, latent = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    schedule = ddpm_schedule()
    torch.testing.assert_close(start_state(schedule, noise, 3.0), noise * math.sqrt(10))
    torch.testing.assert_close(start_state(schedule, noise, 3.0, unit_variance=False), noise * 3)
    torch.testing.assert_close(start_state(schedule, noise, torch.tensor(3.0), latent), latent + 3 * noise)
    torch.testing.assert_close(start_state(FlowSchedule(), noise, 1.0), noise)


@pytest.mark.parametrize("schedule", SCHEDULES.values())
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_predictions_recover_x0(prediction, schedule) -> None:
    x0, noise = torch.randn(3, 2, 4, 5, dtype=torch.float64), torch.randn(3, 2, 4, 5, dtype=torch.float64)
    sigma = torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64)
    x = add_gaussian_noise(schedule, x0, sigma, noise)
    answer = target(prediction, x0, noise, sigma, schedule)
    torch.testing.assert_close(to_x0(prediction, answer, x, sigma, schedule), x0)
    torch.testing.assert_close(from_x0(prediction, x0, x, sigma, schedule), answer)
    gain = output_gain(prediction, sigma, schedule).reshape(3, 1, 1, 1)
    moved = to_x0(prediction, answer + 1, x, sigma, schedule)
    torch.testing.assert_close((moved - x0).abs(), gain.expand_as(x0))


def test_v_is_the_velocity_of_salimans_and_ho() -> None:
    schedule = ddpm_schedule()
    x0, noise = torch.randn(1, 2, 3, 4, dtype=torch.float64), torch.randn(1, 2, 3, 4, dtype=torch.float64)
    abar = float(schedule.alphas_cumprod[600])
    sigma = schedule.sigmas[600:601]
    expected = math.sqrt(abar) * noise - math.sqrt(1 - abar) * x0
    torch.testing.assert_close(target("v", x0, noise, sigma, schedule), expected)
    assert float(input_scale(schedule, sigma)) == pytest.approx(math.sqrt(abar))


def test_flow_velocity_needs_no_alpha() -> None:
    """At sigma 1 there is only noise, and x0 is noise - output."""
    noise, output = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    torch.testing.assert_close(to_x0("flow", output, noise, torch.ones(1), FlowSchedule()), noise - output)


def test_prediction_names() -> None:
    assert [resolve_prediction(n) for n in ("Epsilon", "v_prediction", "sample", "flow_prediction", "V")] == [
        "eps",
        "v",
        "x0",
        "flow",
        "v",
    ]
    with pytest.raises(InvalidRequest, match="did you mean 'flow'"):
        resolve_prediction("flows")
