"""Choices, wildcards and styles."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.text.prompt_styles import Style, apply_styles, merged, parse_styles
from stable_diffusion.text.variants import has_variants, resolve_variants, wildcard_names

LINES = {
    "animal": ["cat", "dog", "__colour__ bird"],
    "colour": ["red", "{light|dark} blue"],
    "loop": ["a __again__"],
    "again": ["b __loop__"],
    "none": [],
}


def resolved(prompt: str, seed: int = 0) -> str:
    return resolve_variants(prompt, seed, LINES.__getitem__)


def outcomes(prompt: str, seeds: int = 400) -> Counter[str]:
    return Counter(resolved(prompt, seed) for seed in range(seeds))


def test_each_choice_is_made_about_as_often_as_it_should() -> None:
    even, uneven = outcomes("{a|b|c}", 3000), outcomes("{3::a|b}", 3000)
    assert set(even) == {"a", "b", "c"} and all(850 < count < 1150 for count in even.values())
    assert set(uneven) == {"a", "b"} and 2150 < uneven["a"] < 2350
    assert set(outcomes("{0::a|b}")) == {"b"}


def test_forms() -> None:
    assert set(outcomes("x {a|{b|c}} y")) == {"x a y", "x b y", "x c y"}
    assert set(outcomes("{2$$a|b}")) == {"a, b", "b, a"}
    assert set(outcomes("{1-2$$ and $$a|b}")) == {"a", "b", "a and b", "b and a"}
    assert set(outcomes("{|a} b")) == {" b", "a b"}
    assert set(outcomes("a __animal__")) == {"a cat", "a dog", "a red bird", "a light blue bird", "a dark blue bird"}
    assert set(outcomes("[{a|b}:{c|d}:0.5]")) == {f"[{x}:{y}:0.5]" for x in "ab" for y in "cd"}


def test_what_is_no_choice_stays() -> None:
    for text in ("{{masterpiece}}", "a { b", "} {", r"\{a|b\}", "__ a __", "snake_case", "a|b", "{2$a}"):
        assert resolved(text) == text and not has_variants(text), text
    assert resolve_variants("a __animal__", 1) == "a __animal__" and has_variants("a __animal__")
    assert wildcard_names("__a__ __b/c__ __d*__ _e_") == ["a", "b/c", "d*"]


def test_the_draw_is_the_seed_s_for_ever() -> None:
    assert [resolve_variants("{a|b|c|d|e|f|g|h}", seed) for seed in range(8)] == list(FIRST)
    assert resolve_variants("{a|b|c|d|e|f}{a|b|c|d|e|f}", 1) != resolve_variants(
        "{a|b|c|d|e|f}{a|b|c|d|e|f}", 1, role="negative_prompt"
    )


FIRST = "eagdhbfd"


def test_what_was_chosen_holds_no_choices() -> None:
    rng = random.Random(2)
    for _ in range(2000):
        text = "".join(rng.choice(["{", "}", "|", "a", "b", "\\", "2$$", " "]) for _ in range(rng.randint(0, 14)))
        try:
            once = resolve_variants(text, 5)
        except InvalidRequest as error:
            assert "\n" not in str(error)
            continue
        assert resolve_variants(once, 6) == resolve_variants(once, 7) or "{" in once


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("__loop__", "the wildcard 'loop' leads back to itself"),
        ("__none__", "the wildcard 'none' has no lines"),
        ("{3$$a|b}", "asks for 3 of 2 choices"),
        ("{3-1$$a|b}", "no rising range"),
    ],
)
def test_what_cannot_be_chosen_is_a_plain_sentence(prompt: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        resolved(prompt)


STYLES = (
    "\ufeffname,prompt,negative_prompt\n"
    'Ink,"ink drawing of {prompt}, black","colour, photo"\n'
    'Plain,,\nNight,"at night, stars",\n"two\nlines","a ""b""",c\n'
)


def test_styles_of_a_file() -> None:
    styles = parse_styles(STYLES)
    assert list(styles) == ["Ink", "Plain", "Night", "two\nlines"]
    assert styles["two\nlines"] == Style('a "b"', "c")
    assert apply_styles("a cat", "", ["Ink", "Night"], styles) == (
        "ink drawing of a cat, black, at night, stars",
        "colour, photo",
    )
    assert apply_styles("a cat", "dog", ["Night", "Ink"], styles) == (
        "ink drawing of a cat, at night, stars, black",
        "dog, colour, photo",
    )
    assert merged("", "x") == "x" and merged("x", "") == "x" and merged("a", "{prompt} {prompt}") == "a a"
    assert parse_styles("") == {}


def test_styles_that_are_not_there() -> None:
    with pytest.raises(InvalidRequest, match="unknown style 'Inc': did you mean 'Ink'"):
        apply_styles("a", "", ["Inc"], parse_styles(STYLES))
    with pytest.raises(InvalidRequest, match="no column 'name'"):
        parse_styles("a,b\n1,2\n")
