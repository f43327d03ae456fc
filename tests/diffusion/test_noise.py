"""The noise contract: one generator per image, and a Brownian path that is a function of the seed."""

from __future__ import annotations

import math

import pytest
import torch
from closed_form import SCHEDULES

from stable_diffusion.diffusion.noise import BrownianNoise, PerImageNoise
from stable_diffusion.diffusion.samplers import SOLVERS, noise_source
from stable_diffusion.errors import InvalidRequest

SIZE = (4, 5, 7)


def test_start_noise_is_what_diffusers_draws_from_a_cpu_generator() -> None:
    from diffusers.utils.torch_utils import randn_tensor

    seeds = [3, 0, 2**63 + 5]
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    theirs = randn_tensor((3, *SIZE), generator=generators, device=torch.device("cpu"), dtype=torch.float32)
    for info in SOLVERS.values():
        assert torch.equal(noise_source(info, seeds, SIZE, SCHEDULES["ddpm"]).start(), theirs)
    single = torch.randn(SIZE, generator=torch.Generator("cpu").manual_seed(3))
    assert torch.equal(PerImageNoise([3], SIZE).start()[0], single)


def test_later_noise_goes_on_from_the_same_generator() -> None:
    source = PerImageNoise([8, 9], SIZE)
    assert torch.equal(source.start(), source.start())  # asking again draws nothing
    generator = torch.Generator().manual_seed(9)
    expected = [torch.randn(SIZE, generator=generator) for _ in range(3)]
    for wanted in expected[1:]:
        assert torch.equal(source(2.0, 1.0)[1], wanted)


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_brownian_noise_depends_on_seed_and_levels_only(kind: str) -> None:
    schedule = SCHEDULES[kind]
    forward, backward = BrownianNoise([4], SIZE, schedule), BrownianNoise([4], SIZE, schedule)
    pairs = [(0.9, 0.7), (0.7, 0.31), (0.9, 0.31), (0.31, 0.02), (0.02, 0.003)]
    ahead = [forward(*pair) for pair in pairs]
    behind = [backward(*pair) for pair in reversed(pairs)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(ahead, behind, strict=True))
    assert torch.equal(BrownianNoise([7, 4], SIZE, schedule)(0.9, 0.7)[1], ahead[0][0])  # alone or in a batch
    assert not torch.equal(BrownianNoise([5], SIZE, schedule)(0.9, 0.7), ahead[0])
    assert torch.equal(
        forward(torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)), ahead[0]
    )


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_brownian_increments_add_up_and_are_standard_normal(kind: str) -> None:
    """W(c) - W(a) = (W(b) - W(a)) + (W(c) - W(b)), in the clock (alpha / sigma)^2."""
    schedule = SCHEDULES[kind]
    source = BrownianNoise([1], (1, 120, 120), schedule)

    def clock(sigma: float) -> float:
        return float(schedule.alpha(torch.tensor(sigma, dtype=torch.float64))) ** 2 / sigma**2

    a, b, c = 0.95, 0.5, 0.21
    first, second, both = source(a, b), source(b, c), source(a, c)
    spans = [math.sqrt(clock(end) - clock(start)) for start, end in ((a, b), (b, c), (a, c))]
    torch.testing.assert_close(both * spans[2], first * spans[0] + second * spans[1], rtol=1e-4, atol=1e-4)
    bound = 4.5 / 120
    for draw in (first, second, both, source(c, c * 0.999)):
        assert abs(float(draw.mean())) < bound and abs(float(draw.std()) - 1) < bound
    assert abs(float((first * second).mean())) < bound  # disjoint intervals are independent
    assert abs(float((first * source.start()).mean())) < bound  # and of the start noise


def test_brownian_noise_from_pure_noise_and_far_above_the_trained_levels() -> None:
    draw = BrownianNoise([1], (1, 100, 100), SCHEDULES["flow"])(1.0, 0.99)
    assert abs(float(draw.std()) - 1) < 4.5 / 141
    draw = BrownianNoise([1], (1, 100, 100), SCHEDULES["ddpm"])(4096.0, 15.0)
    assert abs(float(draw.std()) - 1) < 4.5 / 141


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PerImageNoise([], SIZE), "no seeds"),
        (lambda: PerImageNoise([-1], SIZE), "whole numbers"),
        (lambda: PerImageNoise([2**64], SIZE), "whole numbers"),
        (lambda: PerImageNoise([1], (4, 0, 5)), "at least 1"),
        (lambda: BrownianNoise([1], SIZE, SCHEDULES["ddpm"])(0.5, 0.5), "expected a fall"),
        (lambda: BrownianNoise([1], SIZE, SCHEDULES["ddpm"])(0.5, 0.9), "expected a fall"),
    ],
)
def test_bad_input(make, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        make()
