"""Stochastic samplers: marginals at the end, deterministic limits, convergence along one Brownian path."""

from __future__ import annotations

import math

import pytest
import torch
from closed_form import SCHEDULES, Gaussian, Replay, grid

from stable_diffusion.diffusion.noise import BrownianNoise, PerImageNoise
from stable_diffusion.diffusion.samplers import SOLVERS, sample

LADDER = {"ddpm": ("log", 10.0, 0.05), "flow": ("line", 1.0, 0.05)}
SIZE = (1, 4, 100, 100)


def last_state(name: str, problem: Gaussian, levels: torch.Tensor, start: torch.Tensor, noise=None, **options):
    *_, last = sample(name, problem.denoise, start, levels, problem.schedule, noise=noise, **options)
    return last.x


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("euler_ancestral", {}, 600),
        ("euler_ancestral", {"eta": 0.5}, 600),
        ("ddim", {"eta": 1.0}, 600),
        ("ddpm", {}, 600),
        ("dpm_2_ancestral", {}, 100),
        ("dpmpp_2s_ancestral", {}, 100),
        ("dpmpp_sde", {}, 100),
        ("dpmpp_2m_sde", {}, 100),
        ("dpmpp_2m_sde", {"solver": "heun", "eta": 0.6}, 100),
        ("dpmpp_3m_sde", {}, 100),
        ("euler", {"s_churn": 40.0}, 600),
        ("heun", {"s_churn": 20.0}, 100),
        ("dpm_2", {"s_churn": 20.0}, 100),
        ("tcd", {"eta": 0.01}, 600),
        ("restart", {"restarts": 2}, 100),
        ("dpm_fast", {}, 60),
        ("dpm_fast", {"eta": 1.0}, 300),
        ("dpm_adaptive", {"rtol": 0.002, "atol": 0.002}, 60),
        ("euler_ancestral_cfg_pp", {}, 600),
        ("ddim_cfg_pp", {"eta": 1.0}, 600),
        ("res_multistep_ancestral", {}, 600),
        ("er_sde", {}, 100),
        ("er_sde", {"form": "sde"}, 100),
        ("sa_solver", {}, 100),
        ("sa_solver", {"order": 3, "corrector_order": 4}, 100),
    ],
)
def test_mean_and_spread_at_the_end(name: str, options: dict, steps: int, schedule_name: str) -> None:
    problem = Gaussian(SCHEDULES[schedule_name])
    kind, high, low = LADDER[schedule_name]
    levels = grid(kind, steps, high, low)
    noise = Replay(SIZE, torch.float32, seed=7)
    x = last_state(name, problem, levels, problem.draw(high, SIZE, seed=3).float(), noise, **options)
    mean, std = problem.marginal(low)
    count = SIZE[2] * SIZE[3]
    assert bool(((x.mean((0, 2, 3)) - mean.flatten()).abs() < 4.5 * std.flatten() / math.sqrt(count)).all())
    # 4.5 standard errors, and 1 % for the bias of finite steps
    assert bool(((x.std((0, 2, 3)) / std.flatten() - 1).abs() < 4.5 / math.sqrt(2 * count) + 0.01).all())


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
def test_perfect_consistency_function_gives_the_data_in_any_number_of_lcm_steps(schedule_name: str) -> None:
    problem = Gaussian(SCHEDULES[schedule_name])
    levels = torch.tensor([LADDER[schedule_name][1], 0.6, 0.3, 0.0])
    start = problem.draw(float(levels[0]), SIZE, seed=5)
    noise = Replay(SIZE, torch.float32, seed=8)
    consistency = lambda x, sigma: problem.carry(x, float(sigma[0]), 0.0)  # noqa: E731
    *_, last = sample("lcm", consistency, start, levels, problem.schedule, noise=noise)
    count = SIZE[2] * SIZE[3]
    mean, std = problem.marginal(0.0)
    assert bool(((last.x.mean((0, 2, 3)) - mean.flatten()).abs() < 4.5 * std.flatten() / math.sqrt(count)).all())
    assert bool(((last.x.std((0, 2, 3)) / std.flatten() - 1).abs() < 4.5 / math.sqrt(2 * count)).all())


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
@pytest.mark.parametrize("name", ["lcm", "tcd", "ddpm", "euler_ancestral"])
def test_states_between_steps_have_the_right_noise(name: str, schedule_name: str) -> None:
    """For data that is one point, the state after each step is that point at the next level."""
    schedule = SCHEDULES[schedule_name]
    high = LADDER[schedule_name][1]
    levels = torch.tensor([high, 0.8, 0.4, 0.2], dtype=torch.float64)
    size = (1, 1, 200, 200)
    point = torch.full(size, 0.7, dtype=torch.float64)
    alphas = schedule.alpha(levels)
    start = alphas[0] * point + levels[0] * Replay(size, torch.float64, seed=1)(0, 0)
    noise = Replay(size, torch.float64, seed=2)
    for step in sample(name, lambda x, sigma: point, start, levels, schedule, noise=noise):
        alpha, sigma = float(alphas[step.index + 1]), float(levels[step.index + 1])
        residue = (step.x - alpha * 0.7) / sigma
        assert abs(float(residue.mean())) < 4.5 / 200
        assert abs(float(residue.std()) - 1) < 4.5 / (200 * math.sqrt(2))


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
@pytest.mark.parametrize(
    ("name", "options", "other", "other_options"),
    [
        ("euler_ancestral", {"eta": 0.0}, "euler", {}),
        ("ddim", {}, "euler", {}),
        ("tcd", {"eta": 0.0}, "ddim", {}),
        ("dpm_2_ancestral", {"eta": 0.0}, "dpm_2", {}),
        ("dpmpp_sde", {"eta": 0.0}, "dpmpp_2s_ancestral", {"eta": 0.0}),
        ("dpmpp_2m_sde", {"eta": 0.0}, "dpmpp_2m", {}),
        ("euler", {"s_churn": 5.0, "s_tmax": 0.01}, "euler", {}),
        ("lms", {"order": 1}, "euler", {}),
        ("restart", {"restarts": 0}, "heun", {}),
        ("euler_cfg_pp", {}, "euler", {}),
        ("ddim_cfg_pp", {}, "ddim", {}),
        ("deis", {"order": 1}, "euler", {}),
        ("ipndm", {"order": 1}, "euler", {}),
        ("res_multistep", {}, "dpmpp_2m_sde", {"eta": 0.0, "solver": "heun"}),
        ("er_sde", {"form": "ode", "order": 1}, "euler", {}),
    ],
)
def test_without_noise_it_is_the_deterministic_sampler(name, options, other, other_options, schedule_name) -> None:
    problem = Gaussian(SCHEDULES[schedule_name])
    kind, high, low = LADDER[schedule_name]
    levels = torch.cat([grid(kind, 9, high, low), torch.zeros(1)])
    start = problem.draw(high, (2, 4, 3, 5))
    noise = Replay((2, 4, 3, 5), torch.float64, seed=1)
    left = last_state(name, problem, levels, start, noise, **options)
    right = last_state(other, problem, levels, start, **other_options)
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
@pytest.mark.parametrize("name", [name for name, info in SOLVERS.items() if info.stochastic])
def test_noise_scale_zero_is_the_same_for_every_seed_and_needs_no_source(name: str, schedule_name: str) -> None:
    problem = Gaussian(SCHEDULES[schedule_name])
    kind, high, low = LADDER[schedule_name]
    levels = grid(kind, 24, high, low)
    start = problem.draw(high, (1, 4, 2, 2))
    silent = last_state(name, problem, levels, start, None, s_noise=0.0)
    seeded = last_state(name, problem, levels, start, Replay((1, 4, 2, 2), torch.float64, 3), s_noise=0.0)
    assert torch.equal(silent, seeded)
    noisy = last_state(name, problem, levels, start, Replay((1, 4, 2, 2), torch.float64, 3))
    assert not torch.allclose(silent, noisy)


def test_euler_ancestral_ddim_and_ddpm_are_one_at_eta_one() -> None:
    for problem in (Gaussian(SCHEDULES["ddpm"]), Gaussian(SCHEDULES["flow"])):
        levels = torch.tensor([0.9, 0.5, 0.2, 0.0])
        start = problem.draw(0.9, (1, 4, 2, 2))
        runs = [
            last_state(name, problem, levels, start, PerImageNoise([4], (4, 2, 2)), **options)
            for name, options in (("ddpm", {}), ("ddim", {"eta": 1.0}), ("euler_ancestral", {}))
        ]
        assert torch.equal(runs[0], runs[1]) and torch.equal(runs[1], runs[2])


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_more_steps_follow_the_same_brownian_path(name: str, schedule_name: str) -> None:
    """Strong convergence: with one Brownian path the picture itself converges; fresh noise would keep it apart."""
    problem = Gaussian(SCHEDULES[schedule_name])
    kind, high, low = ("log", 10.0, 0.05) if schedule_name == "ddpm" else ("line", 0.95, 0.05)
    source = BrownianNoise([11], (4, 8, 8), problem.schedule)
    start = problem.draw(high, (1, 4, 8, 8), seed=1)
    states = [last_state(name, problem, grid(kind, steps, high, low), start, source) for steps in (24, 48, 96, 768)]
    errors = [float((state - states[-1]).square().mean().sqrt()) for state in states[:-1]]
    assert errors[2] < 0.05
    assert errors[1] < 0.75 * errors[0] and errors[2] < 0.75 * errors[1], errors
