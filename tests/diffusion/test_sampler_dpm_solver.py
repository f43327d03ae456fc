"""DPM fast and adaptive against diffusers' single-step DPM-Solver, on the levels that ours choose.

Theirs asks at levels that it is given and makes up single steps of them: a step of order 3 is three of its calls, with
levels at thirds in lambda. Of its two forms, the inner step of order 2 takes the one called heun and all others that
called midpoint, which is DPM-Solver-3 as its paper has it (algorithm 5).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import diffusers
import pytest
import torch
from closed_form import SCHEDULES, Gaussian, grid
from diffusers_steps import NOTHING, SD, TOLERANCE, assert_same, network
from torch import Tensor

from stable_diffusion.diffusion.denoise import network_denoiser
from stable_diffusion.diffusion.samplers import sample
from stable_diffusion.diffusion.schedule import ddpm_schedule, input_scale
from stable_diffusion.types import Step

HIGH, LOW = 12.0, 0.05


def start_noise() -> Tensor:
    return torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def ours(name: str, calls: int, **options: Any) -> tuple[list[Step], list[Tensor]]:
    """Steps, and states after each in the coordinates that the network sees."""
    schedule, levels = ddpm_schedule(), grid("log", calls, HIGH, LOW)
    base = network_denoiser(network, schedule, "eps")
    x = start_noise() / input_scale(schedule, levels[:1])
    steps = list(sample(name, lambda x, s: base(x, s, NOTHING), x, levels, schedule, **options))
    ends = [step.sigma for step in steps[1:]] + [LOW]
    return steps, [
        s.x * input_scale(schedule, torch.tensor([e], dtype=torch.float64)) for s, e in zip(steps, ends, strict=True)
    ]


def theirs(places: list[float], orders: list[int]) -> list[Tensor]:
    """States after single steps of these orders between these lambdas."""
    lams, plan = [], []
    for (begin, end), order in zip(itertools.pairwise(places), orders, strict=True):
        lams += [begin + (end - begin) * j / order for j in range(order)]
        plan += list(range(1, order + 1))
    scheduler = diffusers.DPMSolverSinglestepScheduler(
        **SD, algorithm_type="dpmsolver", solver_order=3, final_sigmas_type="sigma_min"
    )
    scheduler.set_timesteps(len(plan))
    sigmas = torch.exp(-torch.tensor([*lams, places[-1]], dtype=torch.float64))
    scheduler.sigmas, scheduler.order_list = sigmas, plan
    scheduler.timesteps = ddpm_schedule().timestep(sigmas[:-1])
    scheduler._step_index = 0
    x, states, whole = start_noise(), [], iter(orders)
    left = next(whole)
    for index, timestep in enumerate(scheduler.timesteps):
        inner = plan[index] == 2 and left == 3
        scheduler.register_to_config(solver_type="heun" if inner else "midpoint")
        x = scheduler.step(network(x, timestep[None]), timestep, x, return_dict=False)[0]
        assert x.dtype == torch.float64
        if plan[index] == left:
            states.append(x)
            left = next(whole, 0)
    return states


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 5, 6, 9, 10, 11, 30])
def test_fast_is_theirs(calls: int) -> None:
    orders = [3] * (calls // 3 - 1) + [2, 1] if calls % 3 == 0 else [3] * (calls // 3) + [calls % 3]
    places = torch.linspace(-math.log(HIGH), -math.log(LOW), len(orders) + 1, dtype=torch.float64).tolist()
    _, states = ours("dpm_fast", calls)
    assert_same(states, theirs(places, orders), TOLERANCE)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("allowed", [1e-3, 0.05, 1e6])
def test_adaptive_takes_their_steps(order: int, allowed: float) -> None:
    """The levels that our steps began at, given to theirs; a step that was tried and not taken changes nothing."""
    steps, states = ours("dpm_adaptive", 10, order=order, rtol=allowed, atol=allowed)
    begins = [step.sigma for step in steps]
    taken = [k for k in range(len(steps)) if k + 1 == len(steps) or begins[k + 1] < begins[k]]
    places = [-math.log(begins[k]) for k in taken] + [-math.log(LOW)]
    assert_same([states[k] for k in taken], theirs(places, [order] * len(taken)), TOLERANCE)
    for tried in set(range(len(steps))) - set(taken):
        assert tried == 0 or torch.equal(steps[tried].x, steps[tried - 1].x)


def test_adaptive_tries_again_where_the_error_is_too_large_and_grows_where_it_is_not() -> None:
    careful, _ = ours("dpm_adaptive", 10, rtol=1e-4, atol=1e-4)
    begins = [step.sigma for step in careful]
    assert any(after == before for before, after in itertools.pairwise(begins)), "no step was refused"
    free, _ = ours("dpm_adaptive", 10, rtol=1e6, atol=1e6)
    sizes = [math.log(one.sigma / other.sigma) for one, other in itertools.pairwise(free)]
    # Soederlind's limiter: no error at all makes a step 1 + arctan(10^(8 / order) - 1) times as long
    growth = 1 + math.atan(1e8 ** (1 / 3) - 1)
    assert sizes == pytest.approx([0.05 * growth**k for k in range(len(sizes))], rel=1e-2) and len(free) < len(careful)


@pytest.mark.parametrize("schedule_name", ["ddpm", "flow"])
def test_a_step_of_order_three_on_gaussian_data_in_closed_form(schedule_name: str) -> None:
    """Four calls are a step of order 3 over half of lambda, and one of order 1; for a flow there is no other oracle."""
    problem = Gaussian(SCHEDULES[schedule_name])
    high, low = (3.0, 0.4) if schedule_name == "ddpm" else (0.8, 0.3)
    start = problem.draw(high, (1, 4, 2, 3))

    def level(lam: float) -> tuple[float, float]:
        ratio = math.exp(-lam)
        return (1.0, ratio) if schedule_name == "ddpm" else (1 / (1 + ratio), ratio / (1 + ratio))

    def noise(x: Tensor, lam: float) -> Tensor:
        alpha, sigma = level(lam)
        return sigma / (alpha**2 * problem.std**2 + sigma**2) * (x - alpha * problem.mean)

    def moved(end: float, share: float, change: Tensor) -> Tensor:
        (alpha, _), (alpha_end, sigma_end) = level(begin), level(end)
        return alpha_end / alpha * start - sigma_end * (math.expm1(end - begin) * noise(start, begin) + share * change)

    def bend(h: float) -> float:
        return math.expm1(h) / h - 1

    begin, last = (
        math.log(float(problem.schedule.alpha(torch.tensor(s, dtype=torch.float64))) / s) for s in (high, low)
    )
    h, nothing = (last - begin) / 2, torch.zeros_like(start)
    first = noise(moved(begin + h / 3, 0.0, nothing), begin + h / 3) - noise(start, begin)
    second = noise(moved(begin + 2 * h / 3, 2 * bend(2 * h / 3), first), begin + 2 * h / 3) - noise(start, begin)
    steps = list(sample("dpm_fast", problem.denoise, start, grid("log", 4, high, low), problem.schedule))
    assert len(steps) == 2
    torch.testing.assert_close(steps[0].x, moved(begin + h, 1.5 * bend(h), second), rtol=1e-12, atol=1e-12)
