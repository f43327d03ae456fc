"""What every sampler promises: batch invariance, progress, and plain errors at the call."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from closed_form import SCHEDULES, Gaussian
from torch import Tensor

from stable_diffusion.diffusion.noise import BrownianNoise, PerImageNoise
from stable_diffusion.diffusion.samplers import SOLVERS, noise_source, sample, solver
from stable_diffusion.diffusion.schedule import FlowSchedule, start_state
from stable_diffusion.diffusion.sigmas import schedule_sigmas
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.request.names import automatic_schedule
from stable_diffusion.types import Estimate

IDS = (
    "euler euler_ancestral heun dpm_2 dpm_2_ancestral lms dpmpp_2s_ancestral dpmpp_2m dpmpp_sde dpmpp_2m_sde "
    "dpmpp_3m_sde ddim ddpm plms uni_pc lcm tcd dpm_fast dpm_adaptive restart euler_cfg_pp euler_ancestral_cfg_pp "
    "ddim_cfg_pp deis ipndm res_multistep res_multistep_ancestral er_sde sa_solver"
).split()
SIZE = (3, 5, 7)  # 105 values: not a multiple of any vector width


def elementwise(x: Tensor, sigma: Tensor) -> Tensor:
    """A denoiser whose answer for an image cannot depend on the rest of the batch."""
    sigma = sigma.reshape(-1, 1, 1, 1)
    return (x / (1 + sigma * sigma)).clamp(-1.5, 1.5) * 0.9 + 0.05 * x * x / (1 + x * x)


def run(name: str, seeds: list[int], kind: str, **options: Any) -> Tensor:
    schedule = SCHEDULES[kind]
    levels = automatic_schedule(name, flow=isinstance(schedule, FlowSchedule))
    sigmas = schedule_sigmas(levels, schedule, 24 if name == "restart" else 8)
    source = noise_source(SOLVERS[name], seeds, SIZE, schedule)
    start = start_state(schedule, source.start(), sigmas[0])
    *_, last = sample(name, elementwise, start, sigmas, schedule, noise=source, **options)
    assert last.x.dtype == torch.float32 and last.x.shape == (len(seeds), *SIZE)
    assert bool(torch.isfinite(last.x).all())
    return last.x


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
@pytest.mark.parametrize("name", IDS)
def test_image_k_of_a_batch_is_bit_identical_to_it_alone(name: str, kind: str) -> None:
    options = {"s_churn": 3.0} if "s_churn" in SOLVERS[name].options else {}
    if name in ("ddim", "ddim_cfg_pp", "dpm_fast", "dpm_adaptive"):
        options = {"eta": 0.8}
    if name == "restart":
        options = {"restarts": 2}
    batch = run(name, [11, 12, 13], kind, **options)
    for index, seed in enumerate((11, 12, 13)):
        assert torch.equal(run(name, [seed], kind, **options)[0], batch[index])
    assert not torch.equal(batch[0], batch[1])


@pytest.mark.parametrize("name", IDS)
def test_the_same_request_gives_the_same_bytes(name: str) -> None:
    assert torch.equal(run(name, [5], "ddpm"), run(name, [5], "ddpm"))


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
@pytest.mark.parametrize("name", IDS)
def test_steps_report_progress_and_the_number_of_calls(name: str, kind: str) -> None:
    schedule, info = SCHEDULES[kind], SOLVERS[name]
    calls: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and sigma.shape == (2,) and sigma.dtype == x.dtype
        calls.append(float(sigma[0]))
        return elementwise(x, sigma)

    sigmas = torch.tensor([0.9, 0.7, 0.4, 0.1, 0.0])
    steps = list(sample(name, denoise, torch.randn(2, *SIZE), sigmas, schedule, noise=PerImageNoise([1, 2], SIZE)))
    assert torch.is_grad_enabled()
    if name in ("dpm_fast", "dpm_adaptive"):  # they choose their own levels between the ends
        assert calls[0] == pytest.approx(0.9) and steps[-1].index == steps[-1].total - 1
        assert all(a.index <= b.index and a.sigma >= b.sigma for a, b in pairwise(steps))
        torch.testing.assert_close(steps[-1].x, steps[-1].denoised)
        return
    assert [s.index for s in steps] == [0, 1, 2, 3] and {s.total for s in steps} == {4}
    assert [s.sigma for s in steps] == pytest.approx([0.9, 0.7, 0.4, 0.1])
    assert len(calls) == {1: 4, 2: 7}[info.calls] + (name == "plms")
    assert torch.is_grad_enabled()
    if name != "plms":
        torch.testing.assert_close(steps[-1].x, steps[-1].denoised)  # the step to 0 returns x0


@pytest.mark.parametrize("name", IDS)
def test_a_sampler_may_be_left_before_its_end(name: str) -> None:
    schedule = SCHEDULES["ddpm"]
    x = torch.randn(1, *SIZE)
    steps = sample(name, elementwise, x, torch.tensor([2.0, 1.0, 0.0]), schedule, noise=PerImageNoise([1], SIZE))
    before = x.clone()
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert torch.is_grad_enabled() and torch.equal(x, before)  # the caller's state is not written to


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_stay_finite(name: str, kind: str, steps: int) -> None:
    problem = Gaussian(SCHEDULES[kind])
    schedule = problem.schedule
    for grid_name in ("sgm_uniform", "normal"):
        sigmas = schedule_sigmas(grid_name, schedule, steps)
        source = noise_source(SOLVERS[name], [1], (4, 5, 7), schedule)
        start = start_state(schedule, source.start(), sigmas[0])
        *_, last = sample(name, problem.denoise, start, sigmas, schedule, noise=source)
        assert bool(torch.isfinite(last.x).all()) and float(last.x.abs().max()) < 60


@pytest.mark.parametrize("name", IDS)
def test_a_denoiser_may_answer_with_x0_alone(name: str) -> None:
    schedule, sigmas = SCHEDULES["ddpm"], torch.tensor([9.0, 3.0, 1.0, 0.3, 0.0])
    x = torch.randn(2, *SIZE) * 9

    def last(denoise: Any) -> Tensor:
        return list(sample(name, denoise, x, sigmas, schedule, noise=PerImageNoise([1, 2], SIZE)))[-1].x

    plain = last(elementwise)
    assert torch.equal(plain, last(lambda x, sigma: Estimate.plain(elementwise(x, sigma))))
    other = last(lambda x, sigma: Estimate(elementwise(x, sigma), elementwise(x, sigma) * 0.9))
    assert torch.equal(plain, other) != SOLVERS[name].paired  # only CFG++ looks at the estimate without guidance


def test_the_list() -> None:
    assert set(SOLVERS) == set(IDS)
    assert {i for i, info in SOLVERS.items() if info.brownian} == {"dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"}
    assert {i for i, info in SOLVERS.items() if info.stochastic} == {
        *("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"),
        *("ddpm", "lcm", "tcd", "restart", "euler_ancestral_cfg_pp", "res_multistep_ancestral", "er_sde", "sa_solver"),
    }
    for info in SOLVERS.values():
        assert info.__doc__ and info.__doc__ != type(info).__doc__
        source = noise_source(info, [1], SIZE, SCHEDULES["ddpm"])
        assert isinstance(source, BrownianNoise if info.brownian else PerImageNoise)


GOOD = torch.tensor([2.0, 1.0, 0.0])
STATE = torch.zeros(1, *SIZE)


@pytest.mark.parametrize(
    ("sigmas", "words"),
    [
        (torch.tensor([math.nan, 1.0, 0.0]), "fall strictly"),
        (torch.tensor([2.0, math.nan, 0.0]), "fall strictly"),
        (torch.tensor([math.inf, 1.0, 0.0]), "fall strictly"),
        (torch.tensor([1.0, 2.0, 0.0]), "fall strictly"),
        (torch.tensor([1.0, 1.0, 0.0]), "fall strictly"),
        (torch.tensor([1.0, -1.0]), "fall strictly"),
        (torch.tensor([1.0]), "at least two levels"),
        (torch.tensor([]), "at least two levels"),
        (torch.tensor([[1.0, 0.0]]), "at least two levels"),
    ],
)
@pytest.mark.parametrize("name", IDS)
def test_bad_sigmas_are_refused_at_the_call(name: str, sigmas: Tensor, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        sample(name, elementwise, STATE, sigmas, SCHEDULES["ddpm"], noise=PerImageNoise([1], SIZE))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sample("eular", elementwise, STATE, GOOD, SCHEDULES["ddpm"]), "did you mean 'euler'"),
        (lambda: solver("dpmpp_2n"), "did you mean 'dpmpp_2m'"),
        (lambda: solver(""), "unknown sampler"),
        (lambda: sample("euler", elementwise, STATE, GOOD, SCHEDULES["ddpm"], eta=1.0), "option of sampler 'euler'"),
        (lambda: sample("euler_ancestral", elementwise, STATE, GOOD, SCHEDULES["ddpm"]), "expected a noise source"),
        (lambda: sample("heun", elementwise, STATE, GOOD, SCHEDULES["ddpm"], s_churn=1.0), "expected a noise source"),
        (lambda: sample("ddim", elementwise, STATE, GOOD, SCHEDULES["ddpm"], eta=math.nan), "eta nan"),
        (lambda: sample("ddim", elementwise, STATE, GOOD, SCHEDULES["ddpm"], eta=-0.1), "eta -0.1"),
        (lambda: sample("ddpm", elementwise, STATE, GOOD, SCHEDULES["ddpm"], s_noise=math.inf), "s_noise inf"),
        (lambda: sample("tcd", elementwise, STATE, GOOD, SCHEDULES["ddpm"], eta=1.2), "eta 1.2"),
        (lambda: sample("lms", elementwise, STATE, GOOD, SCHEDULES["ddpm"], order=5), "order 5"),
        (lambda: sample("uni_pc", elementwise, STATE, GOOD, SCHEDULES["ddpm"], order=0), "order 0"),
        (lambda: sample("uni_pc", elementwise, STATE, GOOD, SCHEDULES["ddpm"], variant="bh3"), "variant"),
        (lambda: sample("dpmpp_2m_sde", elementwise, STATE, GOOD, SCHEDULES["ddpm"], solver="huen"), "mean 'heun'"),
        (lambda: sample("dpmpp_sde", elementwise, STATE, GOOD, SCHEDULES["ddpm"], r=0.0), "r 0.0"),
        (lambda: sample("euler", elementwise, STATE.long(), GOOD, SCHEDULES["ddpm"]), "floating point"),
        (lambda: sample("euler", elementwise, STATE, GOOD, SCHEDULES["flow"]), "at most 1.0"),
    ],
)
def test_bad_input(make: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        make()
