"""Training times, weights and loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from closed_form import SCHEDULES
from torch import Tensor

from stable_diffusion.diffusion.loss import diffusion_loss, draw_times, min_snr_weight, to_timestep, with_high_noise
from stable_diffusion.diffusion.prediction import output_gain, target
from stable_diffusion.diffusion.schedule import FlowSchedule, ddpm_schedule
from stable_diffusion.errors import InvalidRequest


def test_uniform_and_logit_normal_times() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = draw_times(40_000, generator=generator)
    assert 0 < float(uniform.min()) and float(uniform.max()) < 1
    assert abs(float(uniform.mean()) - 0.5) < 4.5 / math.sqrt(12 * 40_000)
    normal = torch.logit(draw_times(40_000, "logit_normal", mean=-0.4, std=1.2, generator=generator).double())
    assert abs(float(normal.mean()) + 0.4) < 4.5 * 1.2 / 200
    assert abs(float(normal.std()) / 1.2 - 1) < 4.5 / math.sqrt(80_000)


@pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
def test_stratified_times_fill_every_stratum_once(distribution: Any) -> None:
    times = draw_times(64, distribution, stratified=True, generator=torch.Generator().manual_seed(1)).double()
    shares = times if distribution == "uniform" else torch.special.ndtr(torch.logit(times))
    assert sorted((shares * 64).floor().long().tolist()) == list(range(64))
    assert times.tolist() != sorted(times.tolist())
    again = draw_times(64, distribution, stratified=True, generator=torch.Generator().manual_seed(1)).double()
    assert torch.equal(times, again)


def test_timesteps_of_times() -> None:
    times = torch.tensor([1e-6, 0.25, 0.5004, 1 - 1e-6])
    assert to_timestep(ddpm_schedule(), times).tolist() == [0, 250, 500, 999]
    assert to_timestep(FlowSchedule(3.0), torch.tensor([0.5])).tolist() == [750]


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "flow"])
def test_min_snr_weighs_the_x0_error_with_the_capped_snr(prediction: Any, kind: str) -> None:
    schedule = SCHEDULES[kind]
    sigma = torch.tensor([0.05, 0.4, 0.9])
    snr = (schedule.alpha(sigma) / sigma) ** 2
    expected = snr.clamp(max=5.0) * output_gain(prediction, sigma, schedule) ** 2
    torch.testing.assert_close(min_snr_weight(prediction, schedule, sigma), expected)


def test_min_snr_of_the_paper() -> None:
    schedule = ddpm_schedule()
    sigma = torch.tensor([0.1, 3.0])
    snr = 1 / sigma**2
    torch.testing.assert_close(min_snr_weight("eps", schedule, sigma), snr.clamp(max=5) / snr)
    torch.testing.assert_close(min_snr_weight("v", schedule, sigma), snr.clamp(max=5) / (snr + 1))


def test_min_snr_is_finite_at_the_ends() -> None:
    for prediction in ("eps", "v", "x0", "flow"):
        weights = min_snr_weight(prediction, FlowSchedule(), torch.tensor([0.0, 1.0]))
        assert bool(torch.isfinite(weights).all())
    assert bool(
        torch.isfinite(min_snr_weight("v", ddpm_schedule(zero_terminal_snr=True), torch.tensor([4096.0]))).all()
    )


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "flow"])
def test_loss_is_zero_for_the_right_answer_and_one_for_an_error_of_one(prediction: Any, kind: str) -> None:
    schedule = SCHEDULES[kind]
    x0, noise = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    timestep = torch.tensor([10.0, 500.0, 900.0])
    answer = target(prediction, x0, noise, schedule.sigma(timestep), schedule)
    tokens, vector = torch.randn(3, 6, 7), torch.randn(3, 8)
    seen: dict[str, Tensor] = {}
    offset = torch.tensor([0.0, 1.0, 2.0]).reshape(3, 1, 1, 1)

    def network(x: Tensor, t: Tensor, tokens: Tensor, *, vector: Tensor | None = None) -> Tensor:
        seen.update(x=x, t=t, tokens=tokens, vector=vector)
        return answer + offset

    loss = diffusion_loss(network, schedule, prediction, x0, noise, timestep, tokens, vector=vector)
    torch.testing.assert_close(loss, torch.tensor([0.0, 1.0, 4.0]))
    assert torch.equal(seen["t"], timestep) and seen["tokens"] is tokens and seen["vector"] is vector
    if kind == "ddpm":
        abar = schedule.alphas_cumprod[timestep.long()].float().reshape(3, 1, 1, 1)
        expected = abar.sqrt() * x0 + (1 - abar).sqrt() * noise
    else:
        share = timestep.reshape(3, 1, 1, 1) / 1000
        expected = (1 - share) * x0 + share * noise
    torch.testing.assert_close(seen["x"], expected, rtol=1e-5, atol=1e-5)
    weighted = diffusion_loss(network, schedule, prediction, x0, noise, timestep, tokens, weighting="min_snr")
    torch.testing.assert_close(weighted, loss * min_snr_weight(prediction, schedule, schedule.sigma(timestep)))


def test_loss_has_gradients_and_float32_precision_from_a_bfloat16_network() -> None:
    weight = torch.ones((), requires_grad=True)
    loss = diffusion_loss(
        lambda x, t, tokens, *, vector=None: (x * weight).bfloat16(),
        FlowSchedule(),
        "flow",
        torch.randn(2, 3, 4, 5),
        torch.randn(2, 3, 4, 5),
        torch.tensor([300, 700]),
        torch.zeros(2, 1, 1),
    )
    loss.sum().backward()
    assert loss.dtype == torch.float32 and weight.grad is not None and float(weight.grad) != 0


def test_bad_input() -> None:
    zeros = torch.zeros(1, 1, 2, 2)
    args = (zeros, zeros, torch.tensor([5.0]), torch.zeros(1, 1, 1))
    with pytest.raises(InvalidRequest, match="did you mean 'logit_normal'"):
        draw_times(3, "logitnormal")
    with pytest.raises(InvalidRequest, match="std 0"):
        draw_times(3, "logit_normal", std=0)
    with pytest.raises(InvalidRequest, match="at least 1"):
        draw_times(0)
    with pytest.raises(InvalidRequest, match="did you mean 'min_snr'"):
        diffusion_loss(lambda x, t, c, *, vector=None: x, FlowSchedule(), "flow", *args, weighting="minsnr")
    with pytest.raises(InvalidRequest, match="network output"):
        diffusion_loss(lambda x, t, c, *, vector=None: x[:, :, :1], FlowSchedule(), "flow", *args)


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_high_noise_takes_its_share_evenly(shift: float) -> None:
    """From 0.8 to pure noise in equal strata, whatever the shift; the rest of the batch stays what it was."""
    schedule, generator = FlowSchedule(shift), torch.Generator().manual_seed(3)
    timestep = to_timestep(schedule, draw_times(64, "logit_normal", mean=-2.0, generator=generator))
    mixed = with_high_noise(schedule, timestep, 0.75, 0.8, generator=generator)
    assert mixed.dtype == timestep.dtype and torch.equal(mixed[48:], timestep[48:])
    strata = ((mixed[:48] / 1000 - 0.8) / 0.2 * 48).sort().values
    assert torch.equal(strata.floor(), torch.arange(48.0))
    assert torch.equal(with_high_noise(schedule, timestep, 0.0, 0.8), timestep)


def test_high_noise_of_a_discrete_schedule_is_whole_timesteps() -> None:
    schedule = ddpm_schedule("scaled_linear")
    mixed = with_high_noise(schedule, torch.zeros(32), 1.0, 0.5, generator=torch.Generator().manual_seed(4))
    assert torch.equal(mixed, mixed.floor()) and mixed.min() >= 500 and mixed.max() <= 999
