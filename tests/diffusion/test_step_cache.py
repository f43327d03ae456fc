"""Steps that leave out the deep part: which are whole, for samplers of one and two calls, and what is kept for whom."""

from __future__ import annotations

import torch
from torch import Tensor

from stable_diffusion.diffusion.samplers import sample
from stable_diffusion.diffusion.schedule import ddpm_schedule
from stable_diffusion.diffusion.step_cache import StepCache
from stable_diffusion.types import Estimate

SIGMAS = torch.tensor([10.0, 8, 6, 4, 3, 2, 1, 0.5, 0])


def run(sampler: str, first: int = 2, every: int = 2, calls: int = 1) -> list[tuple[int, bool]]:
    """(step, whether it left out) of every call of the network."""
    cache, seen = StepCache(SIGMAS, first=first, every=every, shallow=1), []

    def denoise(x: Tensor, sigma: Tensor) -> Estimate:
        for _ in range(calls):
            deep = cache.features(x)
            seen.append((cache.step_of(sigma), deep.reuse))
            if not deep.reuse:
                deep.kept = (x,)
        return Estimate.plain(x / (1 + sigma))

    *_, last = sample(sampler, cache.of(denoise), torch.ones(1, 2, 3, 3) * 10, SIGMAS, ddpm_schedule())
    assert bool(torch.isfinite(last.x).all())
    return seen


def test_every_second_step_is_whole_after_the_first() -> None:
    assert run("euler") == [(1, False), (2, False), (3, True), (4, False), (5, True), (6, False), (7, True), (8, False)]


def test_two_of_three_are_left_out() -> None:
    assert [left for _, left in run("dpmpp_2m", first=1, every=3)] == [
        False,
        True,
        True,
        False,
        True,
        True,
        False,
        True,
    ]


def test_both_calls_of_a_step_are_whole_or_neither() -> None:
    for sampler in ("heun", "dpm_2"):
        by_step: dict[int, set[bool]] = {}
        for step, left in run(sampler):
            by_step.setdefault(step, set()).add(left)
        assert all(len(kinds) == 1 for kinds in by_step.values()) and True in set().union(*by_step.values())


def test_each_call_in_a_step_has_features_of_its_own() -> None:
    seen = run("euler", calls=2)
    assert [left for _, left in seen[::2]] == [left for _, left in seen[1::2]] and len(seen) == 16


def test_another_size_or_another_prompt_begins_anew_and_nothing_old_is_used() -> None:
    cache = StepCache(SIGMAS, first=1, every=2, shallow=1)

    def ask(rows: int) -> bool:
        deep = cache.features(torch.zeros(rows, 1, 2, 2))
        deep.kept = deep.kept or (torch.zeros(1),)
        return deep.reuse

    rows, left = [2], []

    def denoise(x: Tensor, sigma: Tensor) -> Estimate:
        left.append(ask(rows[0]))
        return Estimate.plain(x)

    one, two = cache.of(denoise), cache.of(denoise)
    x = torch.zeros(1, 1, 2, 2)
    one(x, SIGMAS[:1]), one(x, SIGMAS[1:2]), two(x, SIGMAS[1:2])
    rows[0] = 1
    one(x, SIGMAS[1:2])
    assert left == [False, True, False, False]
    rows[0] = 2
    one(x, SIGMAS[5:6])  # step 6 may leave out, but what is kept is of step 1
    assert left[-1] is False
