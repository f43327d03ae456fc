"""The larger icon world: icons whose name is a noun that we know, in coloured and in single-colour sets.

An icon's name counts when, without the ending that tells its style and without numbers, it is exactly a name of an
emoji concept, of a glyph of the table or of words/nouns.tsv; words/not_nouns.tsv lists names that mislead in icon sets,
words/icon_names.tsv gives the nouns of icons whose names say more ("fruit-banana").
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .captions import says_colour
from .colours import NEAR, PAINT
from .concepts import Concept, read_names, read_synonyms
from .fetch import read_iconify
from .glyphs import read_glyphs
from .objects import Job
from .render import iconify_svg
from .sources import PictureSet
from .words import names, rows, slug

LEFT_OUT = ("face-", "cat-face", "person", "family", "hand", "flag", "geometric", "arrow", "math", "religion")
MOST = 2
"""Pictures of one noun in one style of one set."""


@dataclass(frozen=True, kw_only=True)
class Noun:
    """A thing with its names, the main one first."""

    concept: str
    english: tuple[str, ...]
    chinese: tuple[str, ...]


def read_nouns(concepts: Iterable[Concept]) -> dict[str, Noun]:
    """Slug of a name -> noun. An emoji concept comes before the table of glyphs, that before words/nouns.tsv.

    The further names of words/synonyms.tsv do not count: a torch is a flashlight in a sentence, not in an icon set.
    """
    further = {(concept, name) for concept, (listed, _) in read_synonyms().items() for name in listed}
    further -= {(slug(label), name) for label, (listed, _) in read_names().items() for name in listed}
    known = [
        Noun(concept=concept.id, english=concept.english, chinese=concept.chinese)
        for concept in concepts
        if not concept.group.startswith(LEFT_OUT)
    ]
    known += [Noun(concept=g.concept, english=g.english, chinese=g.chinese) for g in read_glyphs()]
    for english, chinese in rows("nouns.tsv"):
        known.append(Noun(concept=slug(names(english)[0]), english=names(english), chinese=names(chinese)))
    found: dict[str, Noun] = {}
    for noun in known:
        for name in (*noun.english, noun.concept):
            if not says_colour(name.replace("-", " ")) and (noun.concept, name) not in further:
                found.setdefault(slug(name), noun)
    for (name,) in rows("not_nouns.tsv"):
        found.pop(name, None)
    return found


def noun_icons(
    entry: PictureSet, icons: Iterable[str], nouns: Mapping[str, Noun], taken: frozenset[tuple[str, str]] = frozenset()
) -> list[tuple[str, str, Noun]]:
    """(icon, style, noun) of a set's icons that are nouns, at most `MOST` of a noun in a style, without those taken."""
    counts: Counter[tuple[str, str]] = Counter()
    found, own = (
        [],
        {
            icon: slug(noun)
            for name, noun, listed in rows("icon_names.tsv")
            if name == entry.name
            for icon in names(listed)
        },
    )
    for icon in icons:
        style, base = entry.style_of(icon)
        base = re.sub(r"(-\d+)+$", "", base)
        noun = nouns.get(own.get(base, base))
        if style is None or noun is None or (entry.name, icon) in taken or counts[noun.concept, style] == MOST:
            continue
        counts[noun.concept, style] += 1
        found.append((icon, style, noun))
    return found


def noun_jobs(entry: PictureSet, nouns: Mapping[str, Noun], roots: dict[str, Path]) -> list[Job]:
    """Every noun of a coloured set, in its own colours."""
    data = read_iconify(entry, roots)
    return [
        Job(
            concept=noun.concept,
            source=entry.name,
            style=style,
            licence=entry.licence,
            colour=None,
            svg=iconify_svg(data["icons"][icon], data, "#26262b"),
            name=icon,
        )
        for icon, style, noun in noun_icons(entry, data["icons"], nouns)
    ]


def noun_glyph_jobs(
    entry: PictureSet, nouns: Mapping[str, Noun], roots: dict[str, Path], paints: int, seed: str
) -> list[Job]:
    """Every noun of a single-colour set, each in a seeded choice of `paints` named colours."""
    data, jobs = read_iconify(entry, roots), []
    taken = frozenset((glyph.set, glyph.glyph) for glyph in read_glyphs())
    for icon, style, noun in noun_icons(entry, data["icons"], nouns, taken):
        for colour in sorted(chosen(f"{seed}{entry.name}{icon}", paints)):
            jobs.append(
                Job(
                    concept=noun.concept,
                    source=entry.name,
                    style=style,
                    licence=entry.licence,
                    colour=colour,
                    svg=iconify_svg(data["icons"][icon], data, PAINT[colour]),
                    name=icon,
                )
            )
    return jobs


def chosen(seed: str, count: int) -> list[str]:
    """`count` named colours by a seed."""
    return random.Random(seed).sample(sorted(PAINT), min(count, len(PAINT)))


def ground_for(colour: str, seed: str) -> str:
    """A ground colour on which `colour` shows well: another one, not near it; white among them."""
    dark = {"black", "brown", "blue", "purple"}
    near = {colour, *NEAR[colour], *(other for other in PAINT if colour in NEAR[other])}
    if colour in dark:
        near |= dark
    near |= {
        "yellow": {"white"},
        "brown": {"red"},
        "red": {"brown"},
        "grey": {"teal"},
        "teal": {"grey"},
        "purple": {"grey"},
    }.get(colour, set())
    return random.Random(seed).choice([other for other in (*sorted(PAINT), "white") if other not in near])
