"""Order of convergence of every deterministic sampler on Gaussian data, where the ODE's solution is known."""

from __future__ import annotations

import math

import pytest
import torch
from closed_form import SCHEDULES, Gaussian, grid

from stable_diffusion.diffusion.samplers import SOLVERS, sample

# sampler, options, lowest slope allowed (nominal order less a little)
SMOOTH = [
    ("euler", {}, 0.95),
    ("euler_ancestral", {"eta": 0.0}, 0.95),
    ("ddim", {}, 0.95),
    ("tcd", {"eta": 0.0}, 0.95),
    ("heun", {}, 1.95),
    ("dpm_2", {}, 1.95),
    ("dpm_2_ancestral", {"eta": 0.0}, 1.95),
    ("dpmpp_2s_ancestral", {"eta": 0.0}, 1.95),
    ("dpmpp_2m", {}, 1.95),
    ("dpmpp_sde", {"eta": 0.0}, 1.95),
    ("dpmpp_sde", {"eta": 0.0, "r": 0.7}, 1.93),
    ("dpmpp_2m_sde", {"eta": 0.0}, 1.95),
    ("dpmpp_2m_sde", {"eta": 0.0, "solver": "heun"}, 1.95),
    ("dpmpp_3m_sde", {"eta": 0.0}, 2.9),
    ("plms", {}, 1.95),
    ("lms", {}, 3.8),
    ("lms", {"order": 3}, 2.9),
    ("uni_pc", {"lower_order_final": False}, 2.8),
    ("uni_pc", {"lower_order_final": False, "variant": "bh1"}, 2.9),
    ("uni_pc", {"lower_order_final": False, "order": 3}, 3.55),
    ("uni_pc", {"lower_order_final": False, "order": 3, "variant": "bh1"}, 3.55),
    ("uni_pc", {"lower_order_final": False, "order": 1}, 1.85),
    ("restart", {"restarts": 0}, 1.95),
    ("euler_cfg_pp", {}, 0.95),
    ("euler_ancestral_cfg_pp", {"eta": 0.0}, 0.95),
    ("ddim_cfg_pp", {}, 0.95),
    ("deis", {}, 2.9),
    ("deis", {"order": 2}, 1.75),
    ("deis", {"order": 4}, 3.7),
    ("ipndm", {}, 1.95),
    ("res_multistep", {}, 1.95),
    ("res_multistep_ancestral", {"eta": 0.0}, 1.95),
    ("er_sde", {"form": "ode"}, 2.9),
    ("er_sde", {"form": "ode", "order": 2}, 1.85),
    ("er_sde", {"form": "ode", "order": 1}, 0.95),
    ("sa_solver", {"eta": 0.0, "lower_order_final": False}, 2.15),
    ("sa_solver", {"eta": 0.0, "lower_order_final": False, "order": 3, "corrector_order": 4}, 3.5),
]


def slope(name: str, options: dict, schedule_name: str, shape: tuple[str, float, float, float], steps: int) -> float:
    """-d log(error) / d log(steps) between `steps` and twice as many."""
    problem = Gaussian(SCHEDULES[schedule_name])
    kind, high, low, power = shape
    start = problem.draw(high, (2, 4, 2, 3))
    wanted = problem.carry(start, high, low)
    errors = []
    for count in (steps, 2 * steps):
        levels = grid(kind, count, high, low, power)
        *_, last = sample(name, problem.denoise, start, levels, problem.schedule, **options)
        errors.append(float((last.x - wanted).abs().max()))
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
@pytest.mark.parametrize(("name", "options", "lowest"), SMOOTH)
def test_order(name: str, options: dict, lowest: float, schedule_name: str) -> None:
    shape = ("log", 10.0, 0.1, 2.0) if schedule_name == "ddpm" else ("line", 0.95, 0.05, 2.0)
    found = slope(name, options, schedule_name, shape, 64)
    assert lowest < found < lowest + 0.7, found


@pytest.mark.parametrize(
    ("name", "options", "lowest"),
    [
        ("euler", {}, 0.95),
        ("ddim", {}, 0.95),
        ("heun", {}, 1.95),
        ("dpm_2", {}, 1.85),
        ("lms", {}, 1.95),
        ("plms", {}, 2.9),
        ("uni_pc", {}, 1.9),
        ("dpmpp_2s_ancestral", {"eta": 0.0}, 1.85),
        ("dpmpp_2m", {}, 1.7),  # error ~ log(n) / n^2: the half log-SNR is infinite at the start
        ("dpmpp_sde", {"eta": 0.0}, 1.85),
        ("dpmpp_2m_sde", {"eta": 0.0}, 1.7),
        ("dpmpp_3m_sde", {"eta": 0.0}, 1.95),
    ],
)
def test_order_of_a_flow_from_pure_noise_to_the_picture(name: str, options: dict, lowest: float) -> None:
    found = slope(name, options, "flow", ("line", 1.0, 0.0, 1.0), 64)
    assert lowest < found < lowest + 0.6, found


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
def test_dpm_fast_is_closer_than_its_last_step_of_order_one(schedule_name: str) -> None:
    """Its steps are of order 3 but for the last two: single steps, whose errors are of order 3 and 2."""
    problem = Gaussian(SCHEDULES[schedule_name])
    high, low = (10.0, 0.1) if schedule_name == "ddpm" else (0.95, 0.05)
    start = problem.draw(high, (2, 4, 2, 3))
    errors = []
    for calls in (24, 48):
        steps = list(sample("dpm_fast", problem.denoise, start, grid("log", calls, high, low), problem.schedule))
        assert len(steps) == calls // 3 + 1
        errors.append(float((steps[-1].x - problem.carry(start, high, low)).abs().max()))
    assert 1.25 < math.log2(errors[0] / errors[1]) < 3.3 and errors[1] < 0.01, errors


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
@pytest.mark.parametrize("order", [2, 3])
def test_dpm_adaptive_keeps_the_error_that_is_allowed(order: int, schedule_name: str) -> None:
    problem = Gaussian(SCHEDULES[schedule_name])
    high, low = (10.0, 0.1) if schedule_name == "ddpm" else (0.95, 0.05)
    start = problem.draw(high, (2, 4, 2, 3))
    levels, wanted = grid("log", 10, high, low), problem.carry(start, high, low)
    errors, counts = [], []
    for allowed in (0.1, 0.001):
        options = {"order": order, "rtol": allowed, "atol": allowed}
        steps = list(sample("dpm_adaptive", problem.denoise, start, levels, problem.schedule, **options))
        errors.append(float((steps[-1].x - wanted).abs().max()))
        counts.append(len(steps))
    assert errors[0] < 0.6 and errors[1] < 0.01 and counts[0] < counts[1], (errors, counts)


def test_plms_has_order_three_on_evenly_spaced_sigmas() -> None:
    """There its weights are Adams-Bashforth's; the two-call start limits order four to three."""
    assert 2.9 < slope("plms", {}, "flow", ("line", 0.95, 0.05, 1.0), 64) < 3.3


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
@pytest.mark.parametrize(
    ("name", "lowest"), [("euler_ancestral", 1.9), ("dpm_2_ancestral", 2.8), ("dpmpp_2s_ancestral", 2.8)]
)
def test_the_fall_of_an_ancestral_step_has_the_order_of_its_solver(
    name: str, lowest: float, schedule_name: str
) -> None:
    """At eta 1 and without the noise, a step lands at sigma / alpha = r'^2 / r, with the solver's local error."""
    problem = Gaussian(SCHEDULES[schedule_name])
    begin = 0.6
    start = problem.draw(begin, (2, 4, 2, 3))

    def error(ratio: float) -> float:
        levels = torch.tensor([begin, begin * ratio], dtype=torch.float64)
        (_, alpha_end), (r, r_end) = problem.schedule.alpha(levels), levels / problem.schedule.alpha(levels)
        reached = float(r_end**2 / r)
        down = reached if schedule_name == "ddpm" else reached / (1 + reached)
        wanted = problem.carry(start, begin, down) / (down / reached) * float(alpha_end)
        *_, last = sample(name, problem.denoise, start, levels, problem.schedule, s_noise=0.0)
        return float((last.x - wanted).abs().max())

    assert math.log2(error(0.98) / error(0.99)) > lowest


def test_every_sampler_is_measured_or_has_no_order() -> None:
    measured = {name for name, _, _ in SMOOTH}
    assert set(SOLVERS) - measured == {
        *("ddpm", "lcm"),  # stochastic with every option
        *("dpm_fast", "dpm_adaptive"),  # steps of their own: below
    }


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
@pytest.mark.parametrize("name", SOLVERS)
def test_point_mass_is_found_exactly(name: str, schedule_name: str) -> None:
    """Data that is one point: the denoiser is constant, and every solver is exact at any number of steps."""
    schedule = SCHEDULES[schedule_name]
    point = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    levels = torch.tensor([schedule.sigma_max, 0.7, 0.5, 0.1, 0.0], dtype=torch.float64)
    start = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * levels[0]

    def noise(sigma: float, sigma_next: float) -> torch.Tensor:
        return torch.randn(2, 3, 2, 2, dtype=torch.float64)

    *_, last = sample(name, lambda x, sigma: point.expand_as(x), start, levels, schedule, noise=noise)
    torch.testing.assert_close(last.x, point.expand_as(start), rtol=1e-12, atol=1e-12)
