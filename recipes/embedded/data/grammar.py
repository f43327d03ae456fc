"""Small grammar for captions: articles, plurals, mass nouns, Chinese measure words."""

from __future__ import annotations

import re

from .words import names, rows

MASS = frozenset(
    """bread butter salt cheese bacon honey milk water fog rain broccoli garlic ginger corn rice spaghetti popcorn sushi
    soap coral wood money fire ice curry tofu toast flatbread falafel fondue bento sake yarn thread camping fireworks
    lightning thunder snow smoke poop poo mail hay pottery tea coffee bubble wine beer pasta noodles chess tennis
    badminton baseball softball basketball volleyball football cricket bowling hockey lacrosse golf rugby applause
    kimono jewelry luggage baggage news paper dna laughter fencing judo karate music art weather night sunrise sunset
    outer space traffic food meat chocolate lettuce celery seaweed wheat grass moss gold
    silver custard dango oden""".split()
)
PROPER = frozenset(
    """santa claus|santa|mrs. claus|father christmas|mother christmas|statue of liberty|tokyo tower|mount fuji|earth
    |saturn|jupiter|mars|confetti|planet earth""".replace("\n", "")
    .replace("    ", "")
    .split("|")
)
SINGULAR_S = frozenset("bus glass cactus octopus abacus dress princess walrus hippopotamus lotus canvas compass cross "
                       "hibiscus bass gas lens kiss boss mattress atlas campus virus platypus narcissus class mess "
                       "christmas grass chess tennis moss brass glasshouse dna".split())  # fmt: skip
PLURALS = {
    "mouse": "mice", "goose": "geese", "sheep": "sheep", "fish": "fish", "deer": "deer", "child": "children",
    "man": "men", "woman": "women", "person": "people", "foot": "feet", "tooth": "teeth", "wolf": "wolves",
    "leaf": "leaves", "knife": "knives", "cactus": "cacti", "moose": "moose", "snowman": "snowmen", "ox": "oxen",
    "shrimp": "shrimp", "squid": "squid", "bison": "bison", "die": "dice", "tropical fish": "tropical fish",
}  # fmt: skip
NUMBERS = {2: "two", 3: "three"}
MEASURES = tuple((ending, word) for word, endings in rows("measures.tsv") for ending in names(endings))


def last_word(name: str) -> str:
    """The head noun of a simple phrase: the last word before a preposition or 'with'."""
    head = re.split(
        r"\s+(?:with|of|on|in|at|over|behind|without|showing|gesturing|wearing|holding|pointing|to)\b", name
    )[0]
    return head.split()[-1] if head.split() else name


def uncountable(name: str) -> bool:
    """Whether a name takes no 'a': a mass noun, a plural, or a proper name."""
    head = last_word(name)
    if name in MASS or head in MASS or name in PROPER or name.split()[0] in ("two", "three", "some", "many"):
        return True
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is")) and head not in SINGULAR_S
    return plural or head in ("people", "teeth", "feet", "dice", "mice")


def article(name: str) -> str:
    """'a' or 'an' by the sound that the name starts with."""
    word = name.lower()
    if re.match(r"(uni|use|usa|uk|euro|ewe|one|ufo|unicorn|u-)", word):
        return "a"
    if re.match(r"(hour|honest|x-ray|sos|mp3|8|11|18)", word):
        return "an"
    return "an" if word[:1] in "aeiou" else "a"


def indefinite(name: str) -> str:
    """'apple' -> 'an apple'; mass nouns, plurals and proper names stay bare."""
    return name if uncountable(name) else f"{article(name)} {name}"


def plural(name: str) -> str:
    """'cat' -> 'cats', 'wolf' -> 'wolves', 'palm tree' -> 'palm trees'."""
    if name in PLURALS:
        return PLURALS[name]
    head, _, word = name.rpartition(" ")
    if word in PLURALS:
        many = PLURALS[word]
    elif re.search(r"(s|x|z|ch|sh)$", word):
        many = word + "es"
    elif re.search(r"[^aeiou]y$", word):
        many = word[:-1] + "ies"
    else:
        many = word + "s"
    return f"{head} {many}".strip()


def some(name: str, number: int) -> str:
    """'a cat', 'two cats', 'three cats'."""
    return indefinite(name) if number == 1 else f"{NUMBERS[number]} {plural(name)}"


def measure(name: str) -> str:
    """The Chinese measure word for a noun, by the longest ending that is listed; 个 when none is."""
    found = [(len(ending), word) for ending, word in MEASURES if name.endswith(ending)]
    return max(found)[1] if found else "个"


def counted(name: str, number: int = 1) -> str:
    """'苹果' -> '一个苹果', with the fitting measure word; two is 两."""
    return {1: "一", 2: "两", 3: "三"}[number] + measure(name) + name
