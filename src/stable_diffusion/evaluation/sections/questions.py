"""What pictures are asked: prompts, and for each the sentences among which the eye must find the prompt again.

A question has one right sentence and wrong ones that differ in one word: the colour, the number, the relation, the
style. The same kinds of question can be put to real pictures, by changing one word of their captions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...data.pack import Record
from ..words import table

SWAPS = (
    ("left of", "right of"),
    ("in front of", "behind"),
    ("above", "below"),
    ("over", "under"),
    ("on top of", "beneath"),
)


@dataclass(frozen=True)
class Question:
    """`sentences[right]` is the prompt, or a true caption; the others are wrong in one word."""

    sentences: tuple[str, ...]
    right: int

    @property
    def prompt(self) -> str:
        return self.sentences[self.right]


@dataclass(frozen=True)
class Noun:
    english: str
    plural: str
    chinese: str
    bare_chinese: str

    @property
    def bare(self) -> str:
        """Without its article."""
        return self.english.split(" ", 1)[1]


def nouns() -> list[Noun]:
    return [Noun(*row) for row in table("nouns")]


def prompt_pairs() -> list[tuple[str, str]]:
    """100 short prompts, English and Chinese, for when there is no data pack with captions."""
    return [(noun.english, noun.chinese) for noun in nouns()]


def synonyms() -> list[tuple[str, str]]:
    """200 pairs (synonym, the name that captions use)."""
    return [(row[0], row[1]) for row in table("synonyms")]


def colour_questions(count: int) -> list[Question]:
    """ "a blue apple", among the same thing in every other colour."""
    colours = [row[0] for row in table("colours")]
    return [
        Question(tuple(f"{article(colour)} {colour} {noun.bare}" for colour in colours), k % len(colours))
        for k, noun in enumerate(_spaced(nouns(), count))
    ]


def counting_questions(count: int) -> list[Question]:
    """ "two cats", among one, two and three."""
    return [
        Question((noun.english, f"two {noun.plural}", f"three {noun.plural}"), k % 3)
        for k, noun in enumerate(_spaced(nouns(), count, start=1))
    ]


def relation_questions(count: int) -> list[Question]:
    """ "a bird above a house", or "a bird below a house"."""
    rows = table("relations")[:count]
    return [
        Question((f"{first} {true} {second}", f"{first} {false} {second}"), 0) for first, true, second, false in rows
    ]


def style_questions(count: int) -> list[Question]:
    """ "a cat, flat style", among the other styles."""
    words = list(style_words().values())
    return [
        Question(tuple(f"{noun.english}, {style}" for style in words), k % len(words))
        for k, noun in enumerate(_spaced(nouns(), count, start=2))
    ]


PAINTED: dict[str, Callable[[int], list[Question]]] = {
    "colour": colour_questions,
    "counting": counting_questions,
    "relations": relation_questions,
    "style": style_questions,
}
"""What is asked of painted pictures: name -> questions, of which the right sentence is the prompt."""


# --- the same for real pictures, from their captions ------------------------------------------------------------------


def real_question(kind: str, record: Record) -> Question | None:
    """A question of this kind about a real picture, or None where its caption does not allow one."""
    return _REAL[kind](record) if record.caption else None


def _real_colour(record: Record) -> Question | None:
    colours = [row[0] for row in table("colours")]
    assert record.caption is not None
    if record.colour not in colours:
        return None
    found = re.search(rf"\b(an?) {record.colour}\b|\b{record.colour}\b", record.caption)
    if found is None:
        return None
    begin, end = found.span()
    words = [f"{article(colour)} {colour}" if found[1] else colour for colour in colours]
    return Question(
        tuple(record.caption[:begin] + word + record.caption[end:] for word in words), colours.index(record.colour)
    )


def _real_counting(record: Record) -> Question | None:
    """Two or three; the noun has the same form for both."""
    assert record.caption is not None
    found = re.search(r"\b(two|three)\b", record.caption)
    if found is None:
        return None
    begin, end = found.span()
    words = ("two", "three")
    return Question(
        tuple(record.caption[:begin] + word + record.caption[end:] for word in words), words.index(found[0])
    )


def _real_relation(record: Record) -> Question | None:
    assert record.caption is not None
    for pair in SWAPS:
        for true, false in (pair, pair[::-1]):
            found = re.search(rf"\b{true}\b", record.caption) if record.style == "scene" else None
            if found is not None and " a" in record.caption[found.end() :]:
                wrong = record.caption[: found.start()] + false + record.caption[found.end() :]
                return Question((record.caption, wrong), 0)
    return None


def _real_style(record: Record) -> Question | None:
    words = style_words()
    if record.style not in words:
        return None
    names = list(words)
    return Question(tuple(f"{record.caption}, {words[name]}" for name in names), names.index(record.style))


_REAL: dict[str, Callable[[Record], Question | None]] = {
    "colour": _real_colour,
    "counting": _real_counting,
    "relations": _real_relation,
    "style": _real_style,
}


def style_words() -> dict[str, str]:
    """Style of a data pack -> the words for it."""
    return {row[0]: row[1] for row in table("styles")}


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _spaced(items: Sequence[Noun], count: int, start: int = 0) -> list[Noun]:
    """`count` items in strides of 7, so that short lists are mixed too; 7 and 100 have no common divisor."""
    return [items[(start + 7 * k) % len(items)] for k in range(count)]
