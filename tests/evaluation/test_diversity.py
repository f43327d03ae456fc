"""Diversity: one picture for all seeds, all seeds different, and a painter that repeats what it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from evaluation_fakes import GREY, FakeEye, axis, bench, ignorant, obedient, record, write_pack
from torch import Tensor

from stable_diffusion.evaluation.bench import Bench, Plan
from stable_diffusion.evaluation.report import Diversity
from stable_diffusion.evaluation.sections.diversity import PROMPTS, measure, pixel_distance

PLAN = Plan(painted=12, held_out=12, training=40, diverse_prompts=3, diverse_seeds=4)


def found(make: Any, **more: Any) -> tuple[Diversity, Bench]:
    made = bench(make, PLAN, **{"eye": FakeEye(), **more})
    return measure(made), made


def orthogonal(prompt: str, seed: int, settings: Mapping[str, Any]) -> Tensor:
    """Another pixel for every prompt and seed."""
    place = PROMPTS.index(prompt) if prompt in PROMPTS else 20
    return axis(10 * place + seed)


def test_seeds_that_change_nothing() -> None:
    result, _ = found(obedient)
    assert result.vendi is not None and math.isclose(result.vendi, 1.0, rel_tol=1e-6)
    assert result.distance is not None and math.isclose(result.distance, 0.0, abs_tol=1e-6)
    assert result.pixel_distance == 0.0
    assert result.distance_between_prompts is not None and result.distance_between_prompts > 0.9


def test_seeds_that_change_everything() -> None:
    result, _ = found(orthogonal)
    assert result.vendi is not None and math.isclose(result.vendi, PLAN.diverse_seeds, rel_tol=1e-6)
    assert all(math.isclose(score, 4.0, rel_tol=1e-6) for score in result.vendi_by_prompt)
    assert result.distance is not None and math.isclose(result.distance, 1.0, rel_tol=1e-6)
    assert result.distance_between_prompts is not None and math.isclose(result.distance_between_prompts, 1.0)
    # two values of 256 differ, in every pair of pictures
    assert math.isclose(result.pixel_distance, (1 - GREY) * math.sqrt(2 / 256), rel_tol=1e-5)


def test_half_of_the_prompts_vary() -> None:
    """Vendi scores by prompt 1, 4, 1, and their mean."""

    def make(prompt: str, seed: int, settings: Mapping[str, Any]) -> Tensor:
        return orthogonal(prompt, seed if prompt == PROMPTS[1] else 0, settings)

    result, _ = found(make)
    assert [round(score, 6) for score in result.vendi_by_prompt] == [1.0, 4.0, 1.0]
    assert result.vendi is not None and math.isclose(result.vendi, 2.0, rel_tol=1e-6)
    assert result.distance is not None and math.isclose(result.distance, 1 / 3, rel_tol=1e-6)


def test_prompts_that_change_nothing() -> None:
    result, _ = found(ignorant)
    assert result.distance_between_prompts is not None
    assert math.isclose(result.distance_between_prompts, 0.0, abs_tol=1e-6)


def test_pixel_distance_by_hand() -> None:
    pictures = torch.stack([torch.zeros(4, 2, 3), torch.ones(4, 2, 3), torch.ones(4, 2, 3)])
    assert math.isclose(pixel_distance(pictures), math.sqrt(2 / 3))  # two of three pairs are 1 apart
    assert pixel_distance(pictures[:1]) == 0.0


# --- memorisation -----------------------------------------------------------------------------------------------------
#
# Training pictures come in pairs that share one of two bright values, so that their own nearest distance is 1/2;
# everything new is orthogonal to all of them, at distance 1.


def old(number: int) -> Tensor:
    return axis(number // 2, 100 + number)


def new(number: int) -> Tensor:
    return axis(150 + number)


def pack(folder: Path, held_out: Any = new, trained: int = 40) -> Any:
    train = [(record(k, "train", f"old {k}"), old(k)) for k in range(trained)]
    return write_pack(folder, train + [(record(k, "heldout", f"new {k}"), held_out(k)) for k in range(12)])


def test_a_painter_that_repeats_its_training_pictures(tmp_path: Path) -> None:
    result, made = found(lambda prompt, seed, settings: old(seed), pack=pack(tmp_path))
    assert result.repeated == 1.0 and result.repeated_of_held_out == 0.0 and result.training == 40
    assert result.nearest_training is not None and math.isclose(result.nearest_training, 0.0, abs_tol=1e-6)
    shown = next(item for item in made.shown if "nearest to a training picture" in item.title)
    assert torch.equal(shown.pictures[0], shown.pictures[1])  # the painted one and the one that it repeats


def test_a_painter_of_new_pictures_and_its_numbers_by_hand(tmp_path: Path) -> None:
    result, _ = found(lambda prompt, seed, settings: axis(200 + seed), pack=pack(tmp_path))
    assert result.repeated == result.repeated_of_held_out == 0.0
    assert result.threshold is not None and math.isclose(result.threshold, 0.5, abs_tol=1e-6)
    for value in (result.nearest_training, result.nearest_training_of_held_out):
        assert value is not None and math.isclose(value, 1.0, abs_tol=1e-6)
    assert result.vendi_of_held_out is not None and math.isclose(result.vendi_of_held_out, 4.0, rel_tol=1e-6)


def test_a_painter_that_repeats_half_of_the_time(tmp_path: Path) -> None:
    """24 pictures in all: 3 prompts x 4 seeds, and one for each of 12 held-out captions with the seeds 0 to 11."""
    result, _ = found(lambda prompt, seed, settings: old(seed) if seed % 2 else new(seed), pack=pack(tmp_path))
    assert result.repeated == 0.5


def test_held_out_pictures_that_were_trained_on(tmp_path: Path) -> None:
    """A leak in the pack shows in the number beside the model's."""
    result, _ = found(lambda prompt, seed, settings: axis(200 + seed), pack=pack(tmp_path, old))
    assert result.repeated == 0.0 and result.repeated_of_held_out == 1.0
    assert result.nearest_training_of_held_out is not None
    assert math.isclose(result.nearest_training_of_held_out, 0.0, abs_tol=1e-6)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    result, made = found(obedient, eye=None)
    assert result.vendi is None and [item.what for item in made.left_out] == ["Vendi score and memorisation"]
    result, made = found(obedient)
    assert result.repeated is None and [item.what for item in made.left_out] == ["memorisation"]
    result, made = found(obedient, pack=pack(tmp_path, trained=0))
    assert result.repeated is None and result.vendi_of_held_out is not None
    assert [item.what for item in made.left_out] == ["memorisation"]
