"""Level grids: closed forms, known values, ends, names, bad input."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch
from closed_form import SCHEDULES as NOISE

from stable_diffusion.diffusion.schedule import FlowSchedule, ddpm_schedule
from stable_diffusion.diffusion.sigmas import AYS_TABLES, GRIDS, beta_quantile, schedule_sigmas, truncate
from stable_diffusion.errors import InvalidRequest

SD = NOISE["ddpm"]
EVERYWHERE = [(name, kind) for name in GRIDS for kind in NOISE if kind != "flow" or name not in ("ays", "gits")]


@pytest.mark.parametrize(("name", "kind"), EVERYWHERE)
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 100])
def test_shape_order_and_ends(name: str, kind: str, steps: int) -> None:
    schedule = NOISE[kind]
    sigmas = schedule_sigmas(name, schedule, steps)
    assert sigmas.shape == (steps + 1,) and sigmas.dtype == torch.float32
    assert bool((sigmas.diff() < 0).all()) and float(sigmas[-1]) == 0
    assert float(sigmas[0]) <= schedule.sigma_max * (1 + 1e-4)
    if name != "ddim_uniform" or kind == "flow":
        assert float(sigmas[0]) == pytest.approx(schedule.sigma_max, rel=1e-4)
    ending = schedule_sigmas(name, schedule, steps, final="sigma_min")
    assert ending.shape == (steps + 1,) and bool((ending.diff() < 0).all())
    assert float(ending[-1]) == pytest.approx(schedule.sigma_min, rel=1e-6)


def test_zero_terminal_snr_grids_start_at_the_cap() -> None:
    schedule = ddpm_schedule(zero_terminal_snr=True)
    for name in ("normal", "karras", "exponential", "sgm_uniform", "simple", "beta", "kl_optimal"):
        assert float(schedule_sigmas(name, schedule, 12)[0]) == pytest.approx(4096, rel=1e-3)


def test_karras_is_equation_five() -> None:
    steps, low, high = 9, SD.sigma_min, SD.sigma_max
    for rho in (7.0, 3.0):
        found = schedule_sigmas("karras", SD, steps, rho=rho)
        for i in range(steps):
            root = high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))
            assert float(found[i]) == pytest.approx(root**rho, rel=1e-6)


def test_exponential_has_a_constant_ratio() -> None:
    ratios = schedule_sigmas("exponential", SD, 8)[1:-1] / schedule_sigmas("exponential", SD, 8)[:-2]
    torch.testing.assert_close(ratios, ratios[0].expand_as(ratios), rtol=1e-5, atol=0)


def test_timesteps_of_the_uniform_grids() -> None:
    def steps(name: str, count: int) -> list[float]:
        return SD.timestep(schedule_sigmas(name, SD, count)[:-1]).tolist()

    assert steps("normal", 4) == pytest.approx([999, 666, 333, 0])
    assert steps("sgm_uniform", 4) == [999, 749, 499, 249]
    assert steps("sgm_uniform", 3) == [999, 666, 332]
    assert steps("simple", 3) == [999, 666, 333]
    assert steps("ddim_uniform", 4) == [751, 501, 251, 1]
    assert steps("ddim_uniform", 3) == [667, 334, 1]


def test_uniform_grids_of_a_flow() -> None:
    assert schedule_sigmas("sgm_uniform", FlowSchedule(), 4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert schedule_sigmas("sgm_uniform", FlowSchedule(3.0), 4).tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    assert schedule_sigmas("normal", FlowSchedule(), 4).tolist() == pytest.approx([1, 0.667, 0.334, 0.001, 0], abs=1e-6)
    assert schedule_sigmas("simple", FlowSchedule(), 3).tolist() == pytest.approx([1, 0.667, 0.334, 0])


@pytest.mark.parametrize(("shift", "steps"), [(1.0, 5), (3.0, 28)])
def test_normal_of_a_flow_is_what_diffusers_visits(shift: float, steps: int) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    found = schedule_sigmas("normal", FlowSchedule(shift), steps)
    assert found.tolist() == pytest.approx(scheduler.sigmas.tolist(), rel=1e-5)


def test_kl_optimal_formula() -> None:
    """Ending on sigma_min it is tan of the line from atan sigma_max to atan sigma_min, i = 0 .. n."""
    n, (low, high) = 6, (math.atan(SD.sigma_min), math.atan(SD.sigma_max))
    expected = [math.tan(i / n * low + (1 - i / n) * high) for i in range(n + 1)]
    assert schedule_sigmas("kl_optimal", SD, n, final="sigma_min").tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("table", ["sd15", "sdxl"])
def test_ays_tables_and_log_linear_interpolation(table: str) -> None:
    values = AYS_TABLES[table]
    assert schedule_sigmas("ays", SD, 11, table=table).tolist() == pytest.approx([*values, 0])
    finer = schedule_sigmas("ays", SD, 21, table=table)
    assert finer[0:21:2].tolist() == pytest.approx(list(values))
    assert float(finer[1]) == pytest.approx(math.sqrt(values[0] * values[1]))


def test_beta_quantiles() -> None:
    """Closed forms: I_x(1, 1) = x, I_x(2, 1) = x^2, I_x(1/2, 1/2) = 2/pi asin(sqrt x); I_x(a, a) is symmetric."""
    for p in (0.001, 0.2, 0.5, 0.77, 0.999):
        assert beta_quantile(p, 1, 1) == pytest.approx(p, abs=1e-13)
        assert beta_quantile(p, 2, 1) == pytest.approx(math.sqrt(p), abs=1e-13)
        assert beta_quantile(p, 0.5, 0.5) == pytest.approx(math.sin(p * math.pi / 2) ** 2, abs=1e-13)
        assert beta_quantile(p, 0.6, 0.6) == pytest.approx(1 - beta_quantile(1 - p, 0.6, 0.6), abs=1e-13)
    assert beta_quantile(0.25, 0.6, 0.6) == pytest.approx(0.1756803786527, abs=1e-12)  # scipy.special.betaincinv
    assert (beta_quantile(0, 0.6, 0.6), beta_quantile(1, 0.6, 0.6)) == (0, 1)


def test_beta_grid() -> None:
    found = SD.timestep(schedule_sigmas("beta", SD, 4)[:-1])
    expected = [999 * beta_quantile(p, 0.6, 0.6) for p in (1, 0.75, 0.5, 0.25)]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    even = SD.timestep(schedule_sigmas("beta", SD, 4, alpha=1, beta=1)[:-1])
    assert even.tolist() == pytest.approx([999, 749.25, 499.5, 249.75], rel=1e-4)


@pytest.mark.parametrize(("strength", "expected"), [(1.0, 10), (0.75, 7), (0.5, 5), (0.1, 1), (0.01, 1), (0.999, 9)])
def test_truncate_keeps_the_last_steps(strength: float, expected: int) -> None:
    sigmas = schedule_sigmas("karras", SD, 10)
    kept = truncate(sigmas, strength)
    assert len(kept) == expected + 1 and torch.equal(kept, sigmas[10 - expected :])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: schedule_sigmas("karas", SD, 10), "did you mean 'karras'"),
        (lambda: schedule_sigmas("", SD, 10), "unknown schedule"),
        (lambda: schedule_sigmas("karras", SD, 0), "steps 0"),
        (lambda: schedule_sigmas("karras", SD, -3), "steps -3"),
        (lambda: schedule_sigmas("karras", SD, 10.5), "steps 10.5"),
        (lambda: schedule_sigmas("karras", SD, True), "steps True"),
        (lambda: schedule_sigmas("karras", SD, 10**9), "steps"),
        (lambda: schedule_sigmas("karras", SD, 10, rho=float("nan")), "rho"),
        (lambda: schedule_sigmas("karras", SD, 10, row=7.0), "did you mean 'rho'"),
        (lambda: schedule_sigmas("beta", SD, 10, alpha=-1), "beta distribution"),
        (lambda: schedule_sigmas("beta", SD, 10, alpha=float("nan")), "beta distribution"),
        (lambda: schedule_sigmas("ays", NOISE["flow"], 10), "choose"),
        (lambda: schedule_sigmas("ays", ddpm_schedule(zero_terminal_snr=True), 10), "4096"),
        (lambda: schedule_sigmas("ays", SD, 10, table="sd3"), "AYS table"),
        (lambda: schedule_sigmas("normal", SD, 10, final="one"), "final level"),
        (lambda: schedule_sigmas("ddim_uniform", SD, 1000), "fewer"),
        (lambda: schedule_sigmas("sgm_uniform", SD, 1500), "fewer steps"),
        (lambda: truncate(torch.tensor([1.0, 0.0]), 0.0), "strength 0.0"),
        (lambda: truncate(torch.tensor([1.0, 0.0]), 1.5), "strength 1.5"),
        (lambda: truncate(torch.tensor([1.0, 0.0]), float("nan")), "strength nan"),
    ],
)
def test_bad_input(make, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        make()
