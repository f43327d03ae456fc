"""What every sampler promises: batch invariance, progress, names, and plain errors at the call."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from closed_form import SCHEDULES, Gaussian
from torch import Tensor

from stable_diffusion.diffusion.noise import BrownianNoise, PerImageNoise
from stable_diffusion.diffusion.samplers import SAMPLERS, automatic_schedule, noise_source, resolve_sampler, sample
from stable_diffusion.diffusion.schedule import start_state
from stable_diffusion.diffusion.sigmas import schedule_sigmas
from stable_diffusion.errors import InvalidRequest

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
    sigmas = schedule_sigmas(automatic_schedule(SAMPLERS[name], schedule), schedule, 24 if name == "restart" else 8)
    source = noise_source(SAMPLERS[name], seeds, SIZE, schedule)
    start = start_state(schedule, source.start(), sigmas[0])
    *_, last = sample(name, elementwise, start, sigmas, schedule, noise=source, **options)
    assert last.x.dtype == torch.float32 and last.x.shape == (len(seeds), *SIZE)
    assert bool(torch.isfinite(last.x).all())
    return last.x


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
@pytest.mark.parametrize("name", IDS)
def test_image_k_of_a_batch_is_bit_identical_to_it_alone(name: str, kind: str) -> None:
    options = {"s_churn": 3.0} if "s_churn" in SAMPLERS[name].options else {}
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
    schedule, info = SCHEDULES[kind], SAMPLERS[name]
    calls: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and sigma.shape == (2,) and sigma.dtype == x.dtype
        calls.append(float(sigma[0]))
        return elementwise(x, sigma)

    sigmas = torch.tensor([0.9, 0.7, 0.4, 0.1, 0.0])
    steps = list(sample(name, denoise, torch.randn(2, *SIZE), sigmas, schedule, noise=PerImageNoise([1, 2], SIZE)))
    assert torch.is_grad_enabled()
    if SAMPLERS[name].own_steps:
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
        source = noise_source(SAMPLERS[name], [1], (4, 5, 7), schedule)
        start = start_state(schedule, source.start(), sigmas[0])
        *_, last = sample(name, problem.denoise, start, sigmas, schedule, noise=source)
        assert bool(torch.isfinite(last.x).all()) and float(last.x.abs().max()) < 60


def test_the_list() -> None:
    assert list(SAMPLERS) == IDS
    assert {i for i, info in SAMPLERS.items() if info.brownian} == {"dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"}
    for info in SAMPLERS.values():
        source = noise_source(info, [1], SIZE, SCHEDULES["ddpm"])
        assert isinstance(source, BrownianNoise if info.brownian else PerImageNoise)


@pytest.mark.parametrize("name", IDS)
def test_every_id_and_label_is_its_own_name(name: str) -> None:
    info = SAMPLERS[name]
    for spelling in (name, info.label, info.label.upper(), f"k_{name}", f"  {name} ", *info.aliases):
        assert resolve_sampler(spelling) == (info, None, {})


@pytest.mark.parametrize(
    ("given", "sampler", "schedule", "options"),
    [
        ("DPM++ 2M Karras", "dpmpp_2m", "karras", {}),
        ("dpm++ 2m karras", "dpmpp_2m", "karras", {}),
        ("Euler a", "euler_ancestral", None, {}),
        ("euler_a", "euler_ancestral", None, {}),
        ("k_euler_a", "euler_ancestral", None, {}),
        ("k_dpm_2_a", "dpm_2_ancestral", None, {}),
        ("DPM2 a Karras", "dpm_2_ancestral", "karras", {}),
        ("LMS Karras", "lms", "karras", {}),
        ("k_dpmpp_2m_ka", "dpmpp_2m", "karras", {}),
        ("k_dpmpp_2s_a", "dpmpp_2s_ancestral", None, {}),
        ("DPM++ 2M SDE Karras", "dpmpp_2m_sde", "karras", {}),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "exponential", {}),
        ("DPM++ 2M SDE Heun", "dpmpp_2m_sde", None, {"solver": "heun"}),
        ("DPM++ 2M SDE Heun Karras", "dpmpp_2m_sde", "karras", {"solver": "heun"}),
        ("DPM++ 2M SDE Heun Exponential", "dpmpp_2m_sde", "exponential", {"solver": "heun"}),
        ("dpmpp_2m_sde_heun", "dpmpp_2m_sde", None, {"solver": "heun"}),
        ("DPM++ 3M SDE", "dpmpp_3m_sde", None, {}),
        ("DPM++ SDE Karras", "dpmpp_sde", "karras", {}),
        ("Euler SGM Uniform", "euler", "sgm_uniform", {}),
        ("DPM++ 2M Align Your Steps", "dpmpp_2m", "ays", {}),
        ("DPM++ 2M SDE Automatic", "dpmpp_2m_sde", "exponential", {}),
        ("uni_pc_bh2", "uni_pc", None, {"variant": "bh2"}),
        ("PNDM", "plms", None, {}),
        ("DPM fast", "dpm_fast", None, {}),
        ("k_dpm_ad", "dpm_adaptive", None, {}),
        ("DPM adaptive Karras", "dpm_adaptive", "karras", {}),
        ("Restart", "restart", None, {}),
        ("Restart Automatic", "restart", "karras", {}),
        ("Euler CFG++", "euler_cfg_pp", None, {}),
        ("Euler a CFG++", "euler_ancestral_cfg_pp", None, {}),
        ("DDIM CFG++", "ddim_cfg_pp", None, {}),
        ("IPNDM_V", "lms", None, {}),
        ("RES multistep", "res_multistep", None, {}),
        ("SA-Solver", "sa_solver", None, {}),
        ("ER-SDE", "er_sde", None, {}),
        ("sample_dpmpp_2m_sde", "dpmpp_2m_sde", None, {}),
        ("DPM++ 2S", "dpmpp_2s_ancestral", None, {"eta": 0.0}),
        ("FlowMatchHeunDiscreteScheduler", "heun", None, {}),
        ("DPM++ 2M Align Your Steps GITS", "dpmpp_2m", "gits", {}),
        ("DPM++ 2M Polyexponential", "dpmpp_2m", "polyexponential", {}),
        ("Euler Linear-quadratic", "euler", "linear_quadratic", {}),
    ],
)
def test_names(given: str, sampler: str, schedule: str | None, options: dict[str, Any]) -> None:
    assert resolve_sampler(given) == (SAMPLERS[sampler], schedule, options)


def test_automatic_follows_a1111() -> None:
    found = {name: automatic_schedule(info, SCHEDULES["ddpm"]) for name, info in SAMPLERS.items()}
    karras = {"dpmpp_2m", "dpmpp_sde", "dpmpp_2s_ancestral", "dpm_2", "dpm_2_ancestral", "restart"}
    assert {name for name, schedule in found.items() if schedule == "karras"} == karras
    assert {name for name, schedule in found.items() if schedule == "exponential"} == {"dpmpp_2m_sde", "dpmpp_3m_sde"}
    assert found["euler"] == found["heun"] == found["lms"] == "normal"
    assert found["ddim"] == found["plms"] == found["uni_pc"] == "ddim_uniform"
    assert {automatic_schedule(info, SCHEDULES["flow"]) for info in SAMPLERS.values()} == {"sgm_uniform"}


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
        (lambda: resolve_sampler("DPM++ 2N Karras"), "unknown sampler 'DPM"),
        (lambda: resolve_sampler(""), "unknown sampler"),
        (lambda: resolve_sampler("Karras"), "unknown sampler"),
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
