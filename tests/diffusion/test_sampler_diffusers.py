"""Step by step equality with diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers_steps import LEADING, SD, SIZE, TOLERANCE, TRAILING, assert_same, levels_of, ours, theirs, to_vp
from torch import Tensor

from stable_diffusion.diffusion.schedule import DiscreteSchedule, FlowSchedule, ddpm_schedule
from stable_diffusion.diffusion.sigmas import schedule_sigmas


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize(("spacing", "kind"), [(LEADING, "ddim_uniform"), (TRAILING, "sgm_uniform")])
def test_ddim(prediction: str, eta: float, final: str, spacing: dict, kind: str) -> None:
    names = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
    scheduler = diffusers.DDIMScheduler(
        **SD, **spacing, clip_sample=False, set_alpha_to_one=final == "zero", prediction_type=names[prediction]
    )
    original = scheduler.step
    scheduler.step = lambda *a, **k: original(*a, eta=eta, **k)
    right = theirs(scheduler, 10, draws=True)
    left = ours("ddim", levels_of(kind, 10, final=final), ddpm_schedule(), prediction, eta=eta)
    assert_same(left, right, TOLERANCE)


@pytest.mark.parametrize("count", [1, 2, 10, 30])
def test_plms_is_pndm_without_its_runge_kutta_start(count: int) -> None:
    scheduler = diffusers.PNDMScheduler(**SD, steps_offset=1, skip_prk_steps=True, set_alpha_to_one=False)
    right = theirs(scheduler, count)
    left = ours("plms", levels_of("ddim_uniform", count, final="sigma_min"), ddpm_schedule(), "eps")
    assert len(right) == count + (count > 1)  # its second call belongs to the first step
    if count == 1:  # one step to the first level: they take Euler's step, we still correct it
        left = ours("euler", levels_of("ddim_uniform", 1, final="sigma_min"), ddpm_schedule(), "eps")
    assert_same(left, right[-count:], TOLERANCE)


@pytest.mark.parametrize(("spacing", "kind"), [(LEADING, "ddim_uniform"), (TRAILING, "sgm_uniform")])
def test_euler(spacing: dict, kind: str) -> None:
    levels = levels_of(kind, 12)
    right = theirs(diffusers.EulerDiscreteScheduler(**SD, **spacing), 12, levels=levels)
    assert_same(ours("euler", levels, ddpm_schedule(), "eps"), to_vp(right, levels), TOLERANCE)


def test_euler_ancestral() -> None:
    levels = levels_of("sgm_uniform", 12)
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**SD, **TRAILING)
    right = theirs(scheduler, 12, levels=levels, draws=True)
    assert_same(ours("euler_ancestral", levels, ddpm_schedule(), "eps"), to_vp(right, levels), TOLERANCE)


def test_heun() -> None:
    levels = levels_of("sgm_uniform", 12)
    doubled = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    right = theirs(diffusers.HeunDiscreteScheduler(**SD, **TRAILING), 12, levels=doubled)
    assert_same(ours("heun", levels, ddpm_schedule(), "eps"), to_vp([*right[1::2], right[-1]], levels), TOLERANCE)


def test_lms_up_to_the_last_step() -> None:
    """The last step to 0 differs: theirs extrapolates, ours returns x0."""
    levels = levels_of("sgm_uniform", 12)
    right = theirs(diffusers.LMSDiscreteScheduler(**SD, **TRAILING), 12, levels=levels)
    assert_same(ours("lms", levels, ddpm_schedule(), "eps")[:-1], to_vp(right, levels)[:-1], TOLERANCE)


@pytest.mark.parametrize("count", [1, 2, 8, 25])
@pytest.mark.parametrize(
    ("name", "options", "algorithm", "solver"),
    [
        ("dpmpp_2m", {}, "dpmsolver++", "midpoint"),
        ("dpmpp_2m_sde", {"eta": 0.0, "solver": "heun"}, "dpmsolver++", "heun"),
        ("dpmpp_2m_sde", {}, "sde-dpmsolver++", "midpoint"),
        ("dpmpp_2m_sde", {"solver": "heun"}, "sde-dpmsolver++", "heun"),
    ],
)
def test_dpm_solver_multistep(name: str, options: dict, algorithm: str, solver: str, count: int) -> None:
    levels = levels_of("sgm_uniform", count)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **SD, **TRAILING, algorithm_type=algorithm, solver_type=solver, final_sigmas_type="zero"
    )
    right = theirs(scheduler, count, levels=levels, draws=True)
    assert_same(ours(name, levels, ddpm_schedule(), "eps", **options), right, TOLERANCE)


@pytest.mark.parametrize("count", [1, 2, 3, 10])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_uni_pc(order: int, variant: str, count: int) -> None:
    final = "zero" if variant == "bh2" else "sigma_min"  # at 0 their bh1 is NaN
    levels = levels_of("sgm_uniform", count, final=final)
    scheduler = diffusers.UniPCMultistepScheduler(
        **SD, **TRAILING, solver_order=order, solver_type=variant, final_sigmas_type="zero"
    )
    right = theirs(scheduler, count, levels=levels)
    assert_same(ours("uni_pc", levels, ddpm_schedule(), "eps", order=order, variant=variant), right, TOLERANCE)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 20])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(order: int, count: int) -> None:
    """At sigma 0 their weights are NaN; from 15 steps on they lower no order."""
    levels = levels_of("sgm_uniform", count, final="sigma_min")
    scheduler = diffusers.DEISMultistepScheduler(**SD, **TRAILING, solver_order=order)
    right = theirs(scheduler, count, levels=levels)
    left = ours("deis", levels, ddpm_schedule(), "eps", order=order, lower_order_final=count < 15)
    assert_same(left, right, TOLERANCE)


class ByStep:
    """The noise of each step by its first level: their solver draws at every step, ours where the noise has a share."""

    def __init__(self, levels: Tensor) -> None:
        generator = torch.Generator().manual_seed(9)
        draws = [torch.randn(SIZE, generator=generator, dtype=torch.float64) for _ in levels[1:]]
        self.draws = dict(zip(levels.tolist(), draws, strict=False))

    def start(self) -> Tensor:
        raise AssertionError("the tests make their own start")

    def __call__(self, sigma: Tensor | float, sigma_next: Tensor | float) -> Tensor:
        return self.draws[float(sigma)]


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3, 10])
@pytest.mark.parametrize(("order", "corrector"), [(1, 1), (1, 2), (2, 2), (2, 3), (3, 1), (3, 3), (3, 4)])
@pytest.mark.parametrize("lower", [True, False])
def test_sa_solver(order: int, corrector: int, eta: float, lower: bool, count: int) -> None:
    levels = levels_of("sgm_uniform", count, final="sigma_min")
    scheduler = diffusers.SASolverScheduler(
        **SD, **TRAILING, predictor_order=order, corrector_order=corrector, lower_order_final=lower,
        tau_func=lambda t: torch.tensor(eta if 200 <= t <= 800 else 0.0, dtype=torch.float64),
    )  # fmt: skip
    right = theirs(scheduler, count, levels=levels, draws=True)
    options = {"order": order, "corrector_order": corrector, "eta": eta, "lower_order_final": lower}
    left = ours("sa_solver", levels, ddpm_schedule(), "eps", noise=ByStep(levels), **options)
    assert_same(left, right, 1e-8)  # they expand exponential integrals of powers of lambda, which cancel


def lcm_levels(scheduler: Any) -> Tensor:
    return torch.cat([ddpm_schedule().sigma(scheduler.timesteps.double()), torch.zeros(1, dtype=torch.float64)])


@pytest.mark.parametrize("steps", [1, 4, 7, 8, 50])
def test_lcm_timesteps(steps: int) -> None:
    scheduler = diffusers.LCMScheduler(**SD)
    scheduler.set_timesteps(steps)
    assert ddpm_schedule().timestep(levels_of("lcm", steps)[:-1]).tolist() == scheduler.timesteps.tolist()


def test_lcm() -> None:
    """Theirs mixes in c_skip = 0.25 / ((10 t)^2 + 0.25) of the state, 1e-7 and less at these timesteps."""
    scheduler = diffusers.LCMScheduler(**SD, set_alpha_to_one=True)
    right = theirs(scheduler, 4, draws=True)
    assert_same(ours("lcm", lcm_levels(scheduler), ddpm_schedule(), "eps"), right, 1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_tcd(eta: float) -> None:
    scheduler = diffusers.TCDScheduler(**SD)
    original = scheduler.step
    scheduler.step = lambda *a, **k: original(*a, eta=eta, **k)
    right = theirs(scheduler, 4, draws=True)
    levels = lcm_levels(scheduler)
    levels[-1] = ddpm_schedule().sigma_min  # theirs ends on timestep 0, without noise
    left = ours("tcd", levels, ddpm_schedule(), "eps", eta=eta)
    assert_same(left[:-1], right[:-1], TOLERANCE)


def test_ddpm() -> None:
    scheduler = diffusers.DDPMScheduler(**SD, **TRAILING, clip_sample=False)
    scheduler.alphas = 1 - scheduler.betas.double()
    right = theirs(scheduler, 10, draws=True)
    assert_same(ours("ddpm", levels_of("sgm_uniform", 10), ddpm_schedule(), "eps"), right, TOLERANCE)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_euler(shift: float) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    original: Callable[..., None] = scheduler.set_timesteps
    scheduler.set_timesteps = lambda n: original(sigmas=[1 - k / n for k in range(n)])
    schedule = FlowSchedule(shift)
    right = theirs(scheduler, 12)
    assert_same(ours("euler", schedule_sigmas("sgm_uniform", schedule, 12).double(), schedule, "flow"), right, 1e-6)


@pytest.mark.parametrize("name", ["dpmpp_2m", "uni_pc"])
def test_flow_with_half_log_snr_solvers(name: str) -> None:
    kinds = {"dpmpp_2m": diffusers.DPMSolverMultistepScheduler, "uni_pc": diffusers.UniPCMultistepScheduler}
    scheduler = kinds[name](
        **SD, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=1.0, final_sigmas_type="zero"
    )
    levels = torch.cat([torch.linspace(0.98, 0.05, 12, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    original = scheduler.set_timesteps

    def with_levels(count: int) -> None:
        original(count)
        scheduler.timesteps = levels[:-1] * 1000
        scheduler._step_index = 0

    scheduler.set_timesteps = with_levels
    right = theirs(scheduler, 12, levels=levels)
    assert_same(ours(name, levels, FlowSchedule(), "flow"), right, TOLERANCE)


@pytest.mark.parametrize("count", [7, 20, 50])
@pytest.mark.parametrize(("spacing", "kind"), [(LEADING, "ddim_uniform"), (TRAILING, "sgm_uniform")])
def test_levels_and_timesteps_are_diffusers(spacing: dict, kind: str, count: int) -> None:
    scheduler = diffusers.EulerDiscreteScheduler(**SD, **spacing)
    scheduler.set_timesteps(count)
    schedule = ddpm_schedule()
    sigmas = schedule_sigmas(kind, schedule, count)
    assert torch.equal(schedule.timestep(sigmas[:-1]), scheduler.timesteps.to(torch.float32))
    torch.testing.assert_close(sigmas, scheduler.sigmas, rtol=2e-5, atol=0)  # their table is a float32 product


def test_linspace_levels_are_diffusers() -> None:
    scheduler = diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="linspace", interpolation_type="log_linear")
    scheduler.set_timesteps(20)
    schedule = DiscreteSchedule(scheduler.alphas_cumprod.double())
    sigmas = schedule_sigmas("normal", schedule, 20)
    torch.testing.assert_close(schedule.timestep(sigmas[:-1]), scheduler.timesteps, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize(("flag", "kind"), [("use_karras_sigmas", "karras"), ("use_exponential_sigmas", "exponential")])
def test_karras_and_exponential_levels_are_diffusers(flag: str, kind: str) -> None:
    scheduler = diffusers.EulerDiscreteScheduler(**SD, **{flag: True}, timestep_spacing="linspace")
    scheduler.set_timesteps(20)
    torch.testing.assert_close(schedule_sigmas(kind, ddpm_schedule(), 20), scheduler.sigmas, rtol=2e-5, atol=0)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize(
    ("kind", "theirs_kind"), [("linear", "linear"), ("scaled_linear", "scaled_linear"), ("cosine", "squaredcos_cap_v2")]
)
def test_noise_schedules_are_diffusers(kind: Any, theirs_kind: str, zero_terminal_snr: bool) -> None:
    config = {**SD, "beta_schedule": theirs_kind}
    scheduler = diffusers.DDIMScheduler(**config, rescale_betas_zero_snr=zero_terminal_snr)
    found = ddpm_schedule(kind, zero_terminal_snr=zero_terminal_snr).alphas_cumprod
    torch.testing.assert_close(found.float()[:-1], scheduler.alphas_cumprod[:-1], rtol=2e-4, atol=1e-7)
