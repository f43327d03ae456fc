"""Captions that say more than the noun: 'a friendly dog with short legs', '一只毛茸茸的小狗'.

A model that has seen "a dog" and "a dog, 3d style" alone draws no dog for "a friendly dog with floppy ears": every word
that it has not met moves the condition away from what it knows. So half of the captions carry words that leave the
picture as it is, by the kind of thing (words/descriptions.tsv), and a colour is told in more ways than before a noun.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ..prompts import plain, read_prompts
from .captions import colourless, pick_names
from .colours import COLOUR_NAMES
from .grammar import article, indefinite, measure, uncountable
from .words import names, rows

ANY = "-"
ENGLISH = (
    "{a} {b} {n}", "{a} {b} {n}", "{b} {n}", "{an} {after}", "{an} {after}", "{a} {b} {n} {after}", "{a} {b}, {b2} {n}",
    "{a} very {b} {n}", "the {b} {n}", "{a} {b} and {b2} {n}", "a picture of {a} {b} {n}", "draw {a} {b} {n}",
)  # fmt: skip
COLOURED = (
    "{an} painted {c}", "{an} in {c}", "{an} that is {c}", "{an}, coloured {c}", "{a} {b} {n} in {c}",
    "{a} {b} {c} {n}", "{a} {c} {n} {after}", "the {n} is {c}", "{an} of {c} colour", "{a} {b} {n}, {c}",
)  # fmt: skip
CHINESE = ("一{m}{b}{n}", "一{m}{b}{n}", "{b}{n}", "一{m}{b}{b2}{n}", "画一{m}{b}{n}", "{b}{n}的图片")
CHINESE_COLOURED = ("一{m}{c}的{b}{n}", "一{m}{b}{c}{n}", "{b}{c}的{n}", "涂成{c}的{n}", "{n}是{c}的", "一{m}{n}，{c}")


@dataclass(frozen=True)
class Words:
    """What may stand before an English noun, after it, and before a Chinese one."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    chinese: tuple[str, ...]


@cache
def words_for(group: str) -> Words:
    """The words of an emoji group, those for every group among them."""
    found = [
        cells for cells in rows("descriptions.tsv") if any(group.startswith(g) or g == ANY for g in names(cells[0]))
    ]
    return Words(*(tuple(word for cells in found for word in names(cells[column])) for column in (1, 2, 3)))


def filled(template: str, noun: str, words: Words, colour: str, source: random.Random) -> str:
    """One English caption; a plural or a mass noun takes no article."""
    before, second = source.sample(words.before, 2)
    text = template.format(
        n=noun,
        an=indefinite(noun),
        a="" if uncountable(noun) else "a",
        b=before,
        b2=second,
        c=colour,
        after=source.choice(words.after),
    )
    text = re.sub(r"^(draw |a picture of )?a (\w+)", lambda m: f"{m[1] or ''}{article(m[2])} {m[2]}", text)
    return " ".join(text.split())


@cache
def judged() -> frozenset[str]:
    """The prompts that judge a model, which no caption may be."""
    return frozenset(plain(prompt) for prompts in read_prompts().values() for prompt in prompts)


def described(
    english: Sequence[str], chinese: Sequence[str], group: str, colour: str | None, named: bool, seed: str, count: int
) -> dict[str, list[str]]:
    """At most `count` captions of each language: {"en": [...], "zh": [...]}, all different, of any of the names.

    `named` says that the colour must be in every caption; names that say another one are then left out.
    """
    source, words = random.Random(f"described {seed}"), words_for(group)
    captions: dict[str, list[str]] = {"en": [], "zh": []}
    nouns, things = (colourless(english), colourless(chinese)) if named else (english, chinese)
    for _ in range(4 * count):
        noun = pick_names(nouns, source)
        captions["en"].append(filled(source.choice(COLOURED if named else ENGLISH), noun, words, colour or "", source))
        thing = pick_names(things, source)
        before, second = source.sample(words.chinese, 2)
        template = source.choice(CHINESE_COLOURED if named else CHINESE)
        shade = COLOUR_NAMES[colour] if colour else ""
        captions["zh"].append(template.format(m=measure(thing), n=thing, b=before, b2=second, c=shade))
    return {
        language: [text for text in dict.fromkeys(texts) if plain(text) not in judged()][:count]
        for language, texts in captions.items()
    }
