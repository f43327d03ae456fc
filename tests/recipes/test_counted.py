"""Two or three of a thing: what is counted, how it is laid out, and that captions say the number."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from recipes.embedded.data.concepts import Concept
from recipes.embedded.data.counted import STYLES, Group, countable, draw_group, group_captions, sample_groups
from recipes.embedded.data.grammar import NUMBERS
from recipes.embedded.data.records import group_record
from recipes.embedded.data.split import read_split

APPLE = Concept(
    id="red-apple", code="1", group="food-fruit", english=("apple", "eating apple"), chinese=("苹果",), colour="red"
)
BREAD = Concept(id="bread", code="2", group="food-prepared", english=("bread",), chinese=("面包",))
NURSE = Concept(id="nurse", code="3", group="person-role", english=("nurse",), chinese=("护士",))
WOLF = Concept(id="wolf", code="4", group="animal-mammal", english=("wolf",), chinese=("狼",))


def test_only_things_with_a_plural_are_counted() -> None:
    assert [countable(concept) for concept in (APPLE, BREAD, NURSE, WOLF)] == [True, False, False, True]


def test_groups_are_spread_evenly() -> None:
    drawn = [(concept, style) for concept in ("red-apple", "wolf", "nurse") for style in (*STYLES, "line")]
    groups = sample_groups([APPLE, NURSE, WOLF], drawn, 32, "1")
    assert groups == sample_groups([APPLE, NURSE, WOLF], drawn, 32, "1")
    assert Counter((group.concept, group.style) for group in groups) == {
        (concept, style): 4 for concept in ("red-apple", "wolf") for style in STYLES
    }
    assert Counter((group.concept, group.style, group.number) for group in groups).most_common(1)[0][1] == 2
    assert sample_groups([NURSE], drawn, 5, "1") == []


@pytest.mark.parametrize("shape", [(40, 40), (40, 10), (10, 40)])
@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_as_many_things_as_said(number: int, seed: str, shape: tuple[int, int]) -> None:
    """The things lie apart and inside: as many patches of opaque pixels as the number says, of equal area."""
    picture = np.zeros((64, 64, 4), dtype=np.uint8)
    picture[10 : 10 + shape[0], 12 : 12 + shape[1]] = (200, 30, 30, 255)
    made = draw_group(Group(concept="x", style="3d", number=number, seed=seed), picture)
    assert made.shape == picture.shape and made.dtype == np.uint8
    areas = patches(made[..., 3] > 128)
    assert len(areas) == number and max(areas) <= 1.3 * min(areas)


def patches(mask: np.ndarray) -> list[int]:
    """Areas of the connected parts of a mask."""
    left, areas = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        todo, area = [left.pop()], 0
        while todo:
            y, x = todo.pop()
            area += 1
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            todo += near
        areas.append(area)
    return areas


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("number", [2, 3])
def test_every_caption_says_the_number(style: str, number: int) -> None:
    captions = group_captions(("wolf", "grey wolf"), ("狼",), style, None, number, "seed")
    assert captions == group_captions(("wolf", "grey wolf"), ("狼",), style, None, number, "seed")
    assert 4 <= len(captions["en"]) <= 8 and 4 <= len(captions["zh"]) <= 8
    assert all(f"{NUMBERS[number]} " in text and "wolves" in text and "{" not in text for text in captions["en"])
    assert all(("两" if number == 2 else "三") in text and "狼" in text and "{" not in text for text in captions["zh"])


def test_colours_go_before_the_plural() -> None:
    texts = group_captions(APPLE.english, APPLE.chinese, "flat", "red", 3, "x")
    assert any("three red apples" in text for text in texts["en"]) and any("三个红色苹果" in t for t in texts["zh"])


def test_a_held_out_style_stays_held_out() -> None:
    split = read_split()
    concept, style = next(entry for entry in sorted(split.concept_style) if entry[1] in STYLES)
    thing = Concept(id=concept, code="9", group="animal-bird", english=("bird",), chinese=("鸟",))
    item = {"source": "set", "licence": "MIT", "style": style, "colour": None, "number": 2, "seed": "1-0"}
    record = group_record(item, thing, split)
    assert record["split"] == "heldout" and record["concept"] == f"2-{concept}" and record["kind"] == "object"
    assert (APPLE.id, "flat") not in split.concept_style
    assert group_record({**item, "style": "flat"}, APPLE, split)["split"] == "train"
