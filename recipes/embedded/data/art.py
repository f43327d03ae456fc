"""More art for the emoji concepts: picture sets without code points, whose icons are found by their names.

Names are compared by their letters and digits alone ("admissiontickets", "admission-tickets"). The sets that do have
code points lend their names, words/art_names.tsv the rest. A trailing number is another picture of the same thing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .captions import says_colour
from .colours import PAINT
from .concepts import Concept, bare_code
from .fetch import read_iconify
from .objects import Job
from .render import iconify_svg
from .sources import PictureSet
from .words import names, rows

FACES = ("face-", "cat-face", "monkey-face")
NOT_AS_GLYPH = ("geometric", "flag", "arrow", "math", "punctuation", "currency")


def squeezed(name: str) -> str:
    """Letters and digits only, lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def known_names(concepts: Iterable[Concept], sets: Iterable[PictureSet], roots: Mapping[str, Path]) -> dict[str, str]:
    """Squeezed name -> concept id, from the sets that have code points and from the concepts' own ids."""
    concepts = list(concepts)
    by_code = {concept.code: concept.id for concept in concepts}
    found = {squeezed(concept.id): concept.id for concept in concepts}
    for entry in sets:
        for code, name in read_iconify(entry, dict(roots))["chars"].items():
            if bare_code(code) in by_code:
                found.setdefault(squeezed(name), by_code[bare_code(code)])
    return found


def own_names(entry: PictureSet) -> dict[str, str]:
    """Squeezed name -> concept id for one set by words/art_names.tsv; "-" is a name that misleads."""
    table = rows("art_names.tsv")
    ordered = [row for row in table if row[0] == "*"] + [row for row in table if row[0] == entry.name]
    return {squeezed(name): concept for _, concept, listed in ordered for name in names(listed)}


def concept_of(spellings: Iterable[str], own: Mapping[str, str], known: Mapping[str, str]) -> str | None:
    """The concept that one of an icon's spellings names, if any."""
    for spelling in spellings:
        for name in (spelling, re.sub(r"-\d+$", "", spelling)):
            concept = own.get(squeezed(name)) or known.get(squeezed(name))
            if concept is not None:
                return None if concept == "-" else concept
    return None


def matched(entry: PictureSet, data: Mapping[str, Any], known: Mapping[str, str]) -> list[tuple[str, str]]:
    """(icon name, concept id) of every icon of a set that draws one of our concepts."""
    spellings: dict[str, list[str]] = {name: [name] for name in data["icons"]}
    for alias, target in data.get("aliases", {}).items():
        spellings.get(target["parent"], []).append(alias)
    own, found = own_names(entry), []
    for icon, listed in spellings.items():
        concept = concept_of(listed, own, known)
        if concept is not None:
            found.append((icon, concept))
    return found


def art_jobs(
    concepts: Mapping[str, Concept], entry: PictureSet, known: Mapping[str, str], roots: dict[str, Path]
) -> list[Job]:
    """Every icon of a coloured set that draws a concept."""
    data = read_iconify(entry, roots)
    return [
        Job(
            concept=concept,
            source=entry.name,
            style=entry.face_style if concepts[concept].group.startswith(FACES) else entry.style,
            licence=entry.licence,
            colour=concepts[concept].colour,
            svg=iconify_svg(data["icons"][icon], data),
            name=icon,
        )
        for icon, concept in matched(entry, data, known)
        if concept in concepts
    ]


def emoji_glyph_jobs(
    concepts: Mapping[str, Concept],
    entry: PictureSet,
    known: Mapping[str, str],
    roots: dict[str, Path],
    paints: int,
    seed: str,
) -> list[Job]:
    """Every icon of a single-colour emoji set, each in a seeded choice of `paints` named colours."""
    data, jobs = read_iconify(entry, roots), []
    for icon, concept in matched(entry, data, known):
        if concepts[concept].group in NOT_AS_GLYPH or all(map(says_colour, concepts[concept].english)):
            continue
        chosen = random.Random(f"{seed}{entry.name}{icon}").sample(sorted(PAINT), min(paints, len(PAINT)))
        jobs += [
            Job(
                concept=concept,
                source=entry.name,
                style=entry.style,
                licence=entry.licence,
                colour=colour,
                svg=iconify_svg(data["icons"][icon], data, PAINT[colour]),
                name=icon,
            )
            for colour in sorted(chosen)
        ]
    return jobs
