"""Single-colour icons: a hand-made table maps glyph names to nouns; each glyph is drawn in every paint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .colours import PAINT
from .fetch import read_iconify
from .objects import Job
from .render import iconify_svg
from .sources import PictureSet
from .words import names, rows, slug


@dataclass(frozen=True, kw_only=True)
class Glyph:
    """One glyph of one set and what it shows."""

    set: str
    glyph: str
    concept: str
    english: tuple[str, ...]
    chinese: tuple[str, ...]


def read_glyphs() -> list[Glyph]:
    """words/glyphs.tsv. The concept is the slug of the main English name, so it matches the emoji of that name."""
    return [
        Glyph(set=name, glyph=glyph, concept=slug(names(english)[0]), english=names(english), chinese=names(chinese))
        for name, glyph, english, chinese in rows("glyphs.tsv")
    ]


def glyph_jobs(glyphs: Iterable[Glyph], sets: Iterable[PictureSet], roots: dict[str, Path]) -> list[Job]:
    """Every glyph in every paint."""
    jobs = []
    wanted = list(glyphs)
    for entry in sets:
        mine = [glyph for glyph in wanted if glyph.set == entry.name]
        if not mine:
            continue
        data = read_iconify(entry, roots)
        for glyph in mine:
            name = glyph.glyph
            while name not in data["icons"]:
                name = data["aliases"][name]["parent"]
            for colour, paint in PAINT.items():
                jobs.append(
                    Job(
                        concept=glyph.concept,
                        source=entry.name,
                        style=entry.style,
                        licence=entry.licence,
                        colour=colour,
                        svg=iconify_svg(data["icons"][name], data, paint),
                        name=glyph.glyph,
                    )
                )
    return jobs
