"""The weighting syntax: published examples, then properties on random strings."""

from __future__ import annotations

import itertools
import math
import random
import re

import pytest

from stable_diffusion.text.prompt import Span, parse_prompt, plain_prompt

EXAMPLES: list[tuple[str, list[tuple[str, float]]]] = [
    ("", []),
    ("normal text", [("normal text", 1.0)]),
    ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
    ("((twice))", [("twice", 1.1**2)]),
    ("(x:1.3)", [("x", 1.3)]),
    ("(x:0)", [("x", 0.0)]),
    ("(x: -.5 )", [("x", -0.5)]),
    ("(x:2.)", [("x", 2.0)]),
    ("[less]", [("less", 1 / 1.1)]),
    ("((a:2) b)", [("a", 2.2), (" b", 1.1)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    ("[[unbalanced", [("unbalanced", 1 / 1.1 / 1.1)]),
    ("closed) twice]", [("closed) twice]", 1.0)]),
    (r"\(literal\) \[too\] \\", [(r"(literal) [too] " + "\\", 1.0)]),
    (r"a \b c", [(r"a \b c", 1.0)]),
    ("ratio 16:9 photo", [("ratio 16:9 photo", 1.0)]),
    ("a:1.5)", [("a:1.5)", 1.0)]),
    ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
    ("(a:b)", [("a:b", 1.1)]),
    ("[a:1.5]", [("a:1.5", 1 / 1.1)]),
    ("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", [
        ("a ", 1.0), ("house", 1.3 * 1.1 * 1.1), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55),
        (", sun, ", 1.1), ("sky", 1.1**4), (".", 1.1),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "spans"), EXAMPLES)
def test_examples(prompt: str, spans: list[tuple[str, float]]) -> None:
    (section,) = parse_prompt(prompt)
    assert [span.text for span in section] == [text for text, _ in spans]
    assert [span.weight for span in section] == pytest.approx([weight for _, weight in spans])


def test_break_parts_sections() -> None:
    assert parse_prompt("a cat BREAK (a dog BREAK red:1.2)") == [
        [Span("a cat")],
        [Span("a dog", 1.2)],
        [Span("red", 1.2)],
    ]
    assert parse_prompt("BREAK") == [[], []]
    assert parse_prompt("BREAKFAST break") == [[Span("BREAKFAST break")]]


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice("ab ()[]\\:1.3,日é\nBREAK") for _ in range(rng.randint(0, 40)))


def test_every_string_has_a_reading_and_keeps_its_letters() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        text = random_text(rng)
        spans = [span for section in parse_prompt(text) for span in section]
        assert all(span.text and math.isfinite(span.weight) for span in spans), text
        read = "".join(span.text for span in spans)
        for letter in "ab,日é":
            assert read.count(letter) == text.count(letter), text


def test_neighbours_of_equal_weight_are_joined() -> None:
    rng = random.Random(2)
    for _ in range(1000):
        for section in parse_prompt(random_text(rng)):
            assert all(a.weight != b.weight for a, b in itertools.pairwise(section))


def test_escaped_text_parses_to_itself() -> None:
    rng = random.Random(3)
    for _ in range(3000):
        text = random_text(rng).replace("BREAK", "")
        sections = parse_prompt(re.sub(r"([()\[\]\\])", r"\\\1", text))
        if "BREAK" not in text:
            assert sections == [[Span(text)] if text else []], text


def test_wrapping_multiplies_every_weight() -> None:
    rng = random.Random(4)
    for _ in range(500):
        words = [rng.choice(["a", "(b)", "[c]", "(d:1.5)", "((e))", " "]) for _ in range(rng.randint(1, 6))]
        inner = "".join(words)
        plain = [(s.text, s.weight) for s in parse_prompt(inner)[0]]
        for wrapped, factor in ((f"({inner})", 1.1), (f"[{inner}]", 1 / 1.1), (f"({inner}:0.7)", 0.7)):
            (section,) = parse_prompt(wrapped)
            assert [s.text for s in section] == [text for text, _ in plain]
            assert [s.weight for s in section] == pytest.approx([w * factor for _, w in plain])


def test_plain_prompt_reads_no_signs() -> None:
    assert plain_prompt("(a:2) BREAK") == [[Span("(a:2) BREAK")]]
    assert plain_prompt("") == [[]]
