"""Variation seeds: both ends of the way bit for bit, the norm kept on it, and noise of another size in the middle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from stable_diffusion.diffusion.noise import PerImageNoise
from stable_diffusion.pipeline.tasks.variation import centred, slerp, varied
from stable_diffusion.request.settings import VariationSeed

SHAPE = (4, 8, 6)
Variations = Sequence[VariationSeed]


def _draw(seeds: Sequence[int], shape: tuple[int, ...]) -> PerImageNoise:
    return PerImageNoise(seeds, shape)


def variation(seeds: Sequence[int] = (), strength: float = 0.0, size: tuple[int, int] | None = None) -> Variations:
    """Of pictures with these seeds, towards the noise of a latent of `size` (h, w), with 8 pixels for each."""
    resize = None if size is None else (8 * size[1], 8 * size[0])
    return [VariationSeed(strength=strength, seed=seed, resize_from=resize) for seed in seeds or (None,)]


def _start(variation: Variations, seeds: Sequence[int] = (5, 5), shape: tuple[int, ...] = SHAPE) -> Tensor:
    return varied(_draw, seeds, shape, variation, 8).start()


@pytest.mark.parametrize("variation", [[], variation((9, 10), 0.0), variation((9, 10), 0.0, (8, 6))], ids=str)
def test_without_strength_the_noise_is_the_seed_s_own(variation: Variations) -> None:
    assert torch.equal(_start(variation), PerImageNoise((5, 5), SHAPE).start())


@pytest.mark.parametrize("size", [None, (8, 6)])
def test_at_full_strength_it_is_that_of_the_variation_seeds(size: tuple[int, int] | None) -> None:
    assert torch.equal(_start(variation((9, 10), 1.0, size)), PerImageNoise((9, 10), SHAPE).start())


def test_each_picture_goes_towards_its_own_variation_seed() -> None:
    both = _start(variation((9, 10), 0.4))
    assert torch.equal(both[1:], _start(variation((10,), 0.4), seeds=(5,)))
    assert not torch.allclose(both[0], both[1])
    assert torch.allclose(both, _start(variation((5, 5), 0.6), seeds=(9, 10)), atol=1e-6)


def test_later_noise_is_that_of_the_main_seed_and_the_start_can_be_asked_for_twice() -> None:
    plain, other = PerImageNoise((5,), SHAPE), varied(_draw, (5,), SHAPE, variation((9,), 0.5, (4, 4)), 8)
    first = other.start()
    first.zero_()
    assert float(other.start().std()) > 0.5
    for _ in range(2):
        assert torch.equal(other(1.0, 0.5), plain(1.0, 0.5))


def test_the_arc_between_perpendicular_directions_is_a_quarter_circle() -> None:
    low, high = torch.tensor([2.0, 0.0]).view(1, 1, 2, 1), torch.tensor([0.0, 2.0]).view(1, 1, 2, 1)
    for amount in (0.0, 0.25, 0.5, 0.9, 1.0):
        angle = amount * math.pi / 2
        expected = torch.tensor([2 * math.cos(angle), 2 * math.sin(angle)]).view(1, 1, 2, 1)
        assert torch.allclose(slerp(amount, low, high), expected, atol=1e-6)


def test_columns_of_equal_length_keep_it_whatever_their_angle() -> None:
    low, high = PerImageNoise((1, 2), (4, 16, 12)).start(), PerImageNoise((3, 4), (4, 16, 12)).start()
    low, high = low / low.norm(dim=-2, keepdim=True), high / high.norm(dim=-2, keepdim=True)
    middle = slerp(0.3, low, high)
    assert torch.allclose(middle.norm(dim=-2), torch.ones(2, 4, 12), atol=1e-6)
    # constant speed: the angle from `low` is its share of the whole
    whole, part = (low * high).sum(-2).acos(), (low * middle).sum(-2).acos()
    assert torch.allclose(part, 0.3 * whole, atol=1e-4)


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.8])
def test_gaussian_noise_stays_of_variance_one(amount: float) -> None:
    low, high = PerImageNoise((1,), (4, 64, 64)).start(), PerImageNoise((2,), (4, 64, 64)).start()
    assert float(slerp(amount, low, high).std()) == pytest.approx(1, abs=0.02)
    straight = (1 - amount) * low + amount * high
    assert float(straight.std()) < 0.95


def test_columns_without_an_arc_are_mixed_straight() -> None:
    column = torch.randn(1, 1, 5, 1, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(slerp(0.25, column, 3 * column), 1.5 * column)
    assert torch.allclose(slerp(0.25, column, -column), 0.5 * column)
    assert torch.allclose(slerp(0.25, column, torch.zeros_like(column)), 0.75 * column)


def test_noise_of_a_smaller_picture_lies_in_the_middle_of_the_canvas() -> None:
    small, canvas = PerImageNoise((5,), (4, 4, 3)).start(), PerImageNoise((5,), SHAPE).start()
    made = _start(variation(size=(4, 3)), seeds=(5,))
    assert torch.equal(made[..., 2:6, 1:4], small)
    kept = torch.ones(8, 6, dtype=torch.bool)
    kept[2:6, 1:4] = False
    assert torch.equal(made[..., kept], canvas[..., kept])


def test_noise_of_a_larger_picture_gives_its_middle() -> None:
    large = PerImageNoise((5,), (4, 12, 10)).start()
    assert torch.equal(_start(variation(size=(12, 10)), seeds=(5,)), large[..., 2:10, 2:8])
    assert torch.equal(_start(variation((6,), 1.0, (12, 10)), seeds=(5,)), _start(variation(size=(12, 10)), seeds=(6,)))


def test_an_odd_overhang_is_cut_at_both_ends_alike() -> None:
    around, noise = -torch.ones(1, 1, 1, 6), torch.arange(9.0).view(1, 1, 1, 9)
    assert centred(noise, around).flatten().tolist() == [2, 3, 4, 5, 6, -1]
    assert centred(noise[..., :3], around).flatten().tolist() == [-1, 0, 1, 2, -1, -1]
    assert float(around.max()) == -1
