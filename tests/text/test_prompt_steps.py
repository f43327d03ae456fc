"""Prompt editing, alternation and AND: known answers, then properties on random strings."""

from __future__ import annotations

import random

import pytest

from stable_diffusion.text.prompt import parse_prompt, split_and
from stable_diffusion.text.prompt_editing import prompt_steps

# What A1111 gives for 10 steps, by its own examples.
EXAMPLES: list[tuple[str, list[tuple[int, str]]]] = [
    ("test", [(10, "test")]),
    ("a [b:3]", [(3, "a "), (10, "a b")]),
    ("a [b: 3]", [(3, "a "), (10, "a b")]),
    ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
    ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
    ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
    ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
    ("a [unbalanced", [(10, "a [unbalanced")]),
    ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
    ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
    ("[a|(b:1.1)]", [(i, "a" if i % 2 else "(b:1.1)") for i in range(1, 11)]),
    ("[fe|]male", [(i, "female" if i % 2 else "male") for i in range(1, 11)]),
    ("[fe|||]male", [(1, "female"), (4, "male"), (5, "female"), (8, "male"), (9, "female"), (10, "male")]),
    ("a [b::0.5]", [(5, "a b"), (10, "a ")]),
    ("[cat:dog:0]", [(10, "dog")]),
    ("[cat:dog:-2]", [(10, "dog")]),
    ("[cat:dog:10]", [(10, "cat")]),
    ("[cat:dog:1.0]", [(10, "cat")]),
    ("[cat:dog:0.25]", [(2, "cat"), (10, "dog")]),
    ("[a:b]", [(10, "[a:b]")]),
    ("[a:b:c:0.5]", [(10, "[a:b:c:0.5]")]),
    ("[a:b:soon]", [(10, "[a:b:soon]")]),
    (r"[a\:b:5]", [(5, ""), (10, r"a\:b")]),
    (r"\[a:b:5\]", [(10, r"\[a:b:5\]")]),
    (r"[a\|b|c]", [(i, r"a\|b" if i % 2 else "c") for i in range(1, 11)]),
    ("(x [a|b])", [(i, "(x a)" if i % 2 else "(x b)") for i in range(1, 11)]),
    ("[x (y [a:b:3] z]", [(3, "[x (y a z]"), (10, "[x (y b z]")]),
]


@pytest.mark.parametrize(("prompt", "stretches"), EXAMPLES)
def test_examples(prompt: str, stretches: list[tuple[int, str]]) -> None:
    assert prompt_steps(prompt, 10) == stretches


def test_the_second_pass_counts_on() -> None:
    assert prompt_steps("a [b:.5] c", 10, before=10) == [(10, "a b c")]
    assert prompt_steps("a [b:1.5] c", 10, before=10) == [(5, "a  c"), (10, "a b c")]
    assert prompt_steps("a [b:12] c", 10, before=10) == [(2, "a  c"), (10, "a b c")]
    assert prompt_steps("a [b:1.5] c", 10) == [(10, "a  c")]


def test_every_string_has_a_reading_that_covers_all_steps() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        text = "".join(rng.choice("ab ()[]|\\::1.25日") for _ in range(rng.randint(0, 40)))
        stretches = prompt_steps(text, 7)
        lasts = [last for last, _ in stretches]
        assert lasts == sorted(set(lasts)) and lasts[-1] == 7, text
        if not any(sign in text for sign in "|:"):
            assert stretches == [(7, text)]


def test_hostile_prompts_are_read_in_bounded_time() -> None:
    for text in ("[" * 10_000, "[a|" * 3000 + "]" * 3000, "[a|b]" * 2000, "[" * 5000 + "]" * 5000, ":|" * 5000):
        assert prompt_steps(text[:10_000], 3)[-1][0] == 3


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a cat AND a dog", [("a cat", 1.0), ("a dog", 1.0)]),
        ("a cat :1.2 AND a dog AND rain:-0.5", [("a cat", 1.2), ("a dog", 1.0), ("rain", -0.5)]),
        ("(a:1.3) AND b", [("(a:1.3)", 1.0), ("b", 1.0)]),
        (r"16\:9 AND b", [(r"16\:9", 1.0), ("b", 1.0)]),
        ("ANDROID and BAND", [("ANDROID and BAND", 1.0)]),
        ("16:9", [("16:9", 1.0)]),
    ],
)
def test_and(prompt: str, parts: list[tuple[str, float]]) -> None:
    assert split_and(prompt) == parts


def test_escaped_signs_of_all_kinds_are_text() -> None:
    (section,) = parse_prompt(r"\[a\|b\] 16\:9 \{x\}")
    assert [(span.text, span.weight) for span in section] == [("[a|b] 16:9 {x}", 1.0)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("[cat:dog:4]", [(2, "cat"), (10, "dog")]),
        ("[cat:dog:5]", [(3, "cat"), (10, "dog")]),  # within the third step: with the fourth
        ("[cat:dog:0.4]", [(4, "cat"), (10, "dog")]),
        ("[cat:dog:0]", [(10, "dog")]),
        ("[a|b]", [(i, "a" if i % 2 else "b") for i in range(1, 11)]),
    ],
)
def test_whole_numbers_may_count_calls_of_the_network(prompt: str, expected: list[tuple[int, str]]) -> None:
    assert prompt_steps(prompt, 10, calls=2) == expected
