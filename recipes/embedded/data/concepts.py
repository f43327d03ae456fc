"""The emoji concepts we draw: which entries of the emoji list are kept, what they are called in English and Chinese.

Left out: skin tones, gendered duplicates of a neutral person, countries, keycaps, letter and Japanese-word buttons,
clock faces (one is kept), zodiac signs, player buttons, and near-duplicates that differ only in the way they face.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .colours import COLOUR_NAMES
from .words import names, rows, slug

DROPPED_SUBGROUPS = frozenset(
    "skin-tone hair-style country-flag subdivision-flag keycap alphanum zodiac av-symbol transport-sign gender".split()
)
MOODY = ("face-smiling", "face-neutral", "face-sleepy", "face-unwell", "face-concerned", "face-negative")


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One thing to draw. `english`, `chinese`: its names, the main one first; `colour`: its own one, if any."""

    id: str
    code: str
    group: str
    english: tuple[str, ...]
    chinese: tuple[str, ...]
    colour: str | None = None


def bare_code(code: str) -> str:
    """A code point sequence in lower case without the presentation selector, the same for every source."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def gendered(entry: dict[str, Any]) -> bool:
    """Whether an entry only repeats a neutral person, couple or family as particular men and women."""
    label, code = entry["label"], bare_code(entry["hexcode"])
    if "200d-2640" in code or "200d-2642" in code or (re.match(r"(man|woman|men|women)\b.*", label) and "200d" in code):
        return True
    return bool(re.match(r"(family|kiss|couple with heart|person|man|woman): .*(man|woman|boy|girl|adult)", label))


def kept(entry: dict[str, Any], subgroup: str, dropped: frozenset[str]) -> bool:
    """Whether an emoji list entry is one of our concepts. `dropped` holds labels left out by hand."""
    label = entry["label"]
    if "group" not in entry or subgroup in DROPPED_SUBGROUPS or label in dropped or gendered(entry):
        return False
    if "facing right" in label or (label.endswith(" arrow") and label.split()[0].isupper()):
        return False
    return not ("o’clock" in label or "-thirty" in label) or label == "three o’clock"


def plain_label(label: str) -> str:
    """An emoji label as a noun phrase: 'person: red hair' -> 'person with red hair'."""
    label = label.replace("’", "'").replace("“", "").replace("”", "").replace("!", "")
    return re.sub(r"^person: (.*)$", r"person with \1", label).lower()


def spoken_colour(label: str) -> str | None:
    """The colour that a label itself names ('green apple'), or None."""
    return next((word for word in label.split() if word in COLOUR_NAMES), None)


def read_names() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """words/names.tsv: label -> English names, Chinese names. An empty cell keeps the emoji list's name."""
    return {label: (names(english), names(chinese)) for label, english, chinese in rows("names.tsv")}


def read_synonyms() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """words/synonyms.tsv: concept -> more English names, more Chinese names."""
    return {concept: (names(english), names(chinese)) for concept, english, chinese in rows("synonyms.tsv")}


def mood_names(tags: list[str]) -> tuple[list[str], list[str]]:
    """Names of a face by its moods, from the emoji list's keywords: 'sad face', '难过的脸'."""
    table = {keyword: (mood, chinese) for keyword, mood, chinese in rows("moods.tsv")}
    moods = dict.fromkeys(table[tag] for tag in tags if tag in table)
    return [f"{mood} face" for mood, _ in moods], [f"{chinese}的脸" for _, chinese in moods]


def emoji_concepts(root: Path) -> list[Concept]:
    """All kept concepts, in the emoji list's order. `root` is the unpacked emojibase-data package."""
    english = json.loads((root / "en/data.json").read_text("utf-8"))
    chinese = {entry["hexcode"]: entry for entry in json.loads((root / "zh/data.json").read_text("utf-8"))}
    subgroups = json.loads((root / "meta/groups.json").read_text("utf-8"))["subgroups"]
    dropped = frozenset(row[0] for row in rows("dropped.tsv"))
    synonyms = read_synonyms()
    table, colours = read_names(), {row[0]: row[1] for row in rows("recolour.tsv")}
    concepts = []
    for entry in english:
        subgroup = subgroups.get(str(entry.get("subgroup")), "")
        if not kept(entry, subgroup, dropped):
            continue
        label = entry["label"]
        own_english, own_chinese = table.get(label, ((), ()))
        more_english, more_chinese = synonyms.get(slug(label), ((), ()))
        moods = mood_names(entry.get("tags", [])) if subgroup.startswith(MOODY) else ([], [])
        listed = own_english or (plain_label(label),)
        listed_chinese = own_chinese or (re.sub("[:：]\\s*", "", chinese[entry["hexcode"]]["label"]).strip(),)
        concepts.append(
            Concept(
                id=slug(label),
                code=bare_code(entry["hexcode"]),
                group=subgroup,
                english=tuple(dict.fromkeys((*listed, *more_english, *moods[0]))),
                chinese=tuple(dict.fromkeys((*listed_chinese, *more_chinese, *moods[1]))),
                colour=colours.get(slug(label)) or spoken_colour(label),
            )
        )
    return concepts
