"""Many requests from Python: in order, lazily, by processes that may die."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator

import pytest

import stable_diffusion
from stable_diffusion import InvalidRequest, Request, generate_many

SETTINGS = {"model": "embedded-fast", "steps": 1, "width": 64, "height": 64}


def requests(seen: list[int]) -> Iterator[Request]:
    for number in itertools.count():
        seen.append(number)
        yield Request("a cat", seed=number, **SETTINGS)


def test_pictures_come_in_order_and_when_they_are_asked_for() -> None:
    seen: list[int] = []
    found = list(itertools.islice(generate_many(requests(seen)), 3))
    assert [images.seeds for images in found] == [(0,), (1,), (2,)] and seen == [0, 1, 2]
    several = list(generate_many([{"prompt": "a dog", "seed": 2, "count": 2, **SETTINGS}]))
    assert [images.seeds for images in several] == [(2,), (3,)]
    assert stable_diffusion.generate_many is generate_many


def test_processes_give_the_same_pictures_though_one_dies() -> None:
    seen: list[int] = []
    here = list(itertools.islice(generate_many(requests([])), 4))
    there = generate_many(requests(seen), workers=1, threads=1)
    found = [next(there)]
    (process,) = multiprocessing.active_children()
    process.kill()
    found += itertools.islice(there, 3)
    there.close()  # type: ignore[attr-defined]
    assert [images.images[0].tobytes() for images in found] == [images.images[0].tobytes() for images in here]
    assert [images.images[0].info for images in found] == [images.images[0].info for images in here]
    assert len(seen) <= 4 + 2


def test_refusals() -> None:
    for wrong in ("a cat", {"prompt": "a"}, Request("a"), 7, None):
        with pytest.raises(InvalidRequest, match="expected a list"):
            generate_many(wrong)  # type: ignore[arg-type]
    for options in ({"workers": 0}, {"workers": True}, {"threads": -1}, {"devices": ()}, {"devices": "cpu"}):
        with pytest.raises(InvalidRequest, match="expected"):
            generate_many([], **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        next(generate_many([{"steps": 3}]))
