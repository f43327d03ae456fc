"""What a build really uses of the packages: the icons, files and lines that some shard draws or reads, nothing else.

The choice of pictures depends on the order of icons and on nothing that is left out here, so that a pack made from the
cut-down packages has the same bytes as one made from the whole ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .art import known_names, matched
from .clipart import clipart_jobs
from .concepts import Concept, bare_code, emoji_concepts
from .fetch import read_iconify
from .glyphs import read_glyphs
from .nouns import Noun, noun_icons, read_nouns
from .sources import PACKAGES, Package, PictureSet, package_of, sets_of

ICONIFY = (
    "iconify-emoji", "iconify-art", "iconify-emoji-glyph", "iconify-glyph", "iconify-noun", "iconify-noun-hue",
    "iconify-noun-glyph",
)  # fmt: skip
BESIDE_ICONS = ("prefix", "info", "width", "height", "left", "top", "chars")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What pictures are looked for: concepts by code point and by squeezed name; nouns. roots: package -> its files."""

    roots: dict[str, Path]
    codes: frozenset[str]
    known: dict[str, str]
    nouns: dict[str, Noun]


def wanted_pictures(roots: dict[str, Path]) -> Wanted:
    """From the emoji list and the word tables."""
    concepts: list[Concept] = emoji_concepts(roots["emojibase-data"])
    return Wanted(
        roots=roots,
        codes=frozenset(concept.code for concept in concepts),
        known=known_names(concepts, sets_of("iconify-emoji"), roots),
        nouns=read_nouns(concepts),
    )


def drawn_name(data: Mapping[str, Any], name: str) -> str:
    """The icon that a name or an alias, or an alias of an alias, stands for."""
    while name not in data["icons"] and name in data.get("aliases", {}):
        name = data["aliases"][name]["parent"]
    return name


def used_icons(entry: PictureSet, data: Mapping[str, Any], wanted: Wanted) -> set[str]:
    """Names of the icons that some shard draws, by the layouts of the set."""
    used: set[str] = set()
    layouts, glyphs = set(entry.layouts), [glyph.glyph for glyph in read_glyphs() if glyph.set == entry.name]
    if "iconify-emoji" in layouts:
        used |= {drawn_name(data, name) for code, name in data["chars"].items() if bare_code(code) in wanted.codes}
    if layouts & {"iconify-art", "iconify-emoji-glyph"}:
        used |= {icon for icon, _ in matched(entry, data, wanted.known)}
    if "iconify-glyph" in layouts:
        used |= {drawn_name(data, glyph) for glyph in glyphs}
    if layouts & {"iconify-noun", "iconify-noun-hue"}:
        used |= {icon for icon, _, _ in noun_icons(entry, data["icons"], wanted.nouns)}
    if "iconify-noun-glyph" in layouts:
        taken = frozenset((entry.name, glyph) for glyph in glyphs)
        used |= {icon for icon, _, _ in noun_icons(entry, data["icons"], wanted.nouns, taken)}
    return used


def cut_set(data: Mapping[str, Any], used: set[str]) -> bytes:
    """An icon set's JSON with the used icons, in the order they had, and their aliases."""
    aliases = {name: alias for name, alias in data.get("aliases", {}).items() if drawn_name(data, name) in used}
    kept = {name: data[name] for name in BESIDE_ICONS if name in data}
    icons = {name: icon for name, icon in data["icons"].items() if name in used}
    return json.dumps({**kept, "icons": icons, "aliases": aliases}, ensure_ascii=False, separators=(",", ":")).encode()


def cut_nouns(text: str) -> str:
    """WordNet's data.noun without the glosses, its licence kept."""
    lines = text.splitlines()
    return "".join(f"{line if line.startswith('  ') else line.partition(' | ')[0]}\n" for line in lines)


def cut_senses(text: str) -> str:
    """WordNet's index.sense, the nouns alone."""
    return "".join(f"{line}\n" for line in text.splitlines() if line.partition("%")[2].startswith("1:"))


def cut_files(package: Package, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """(path inside the package, content) of what a build uses of one package, in a fixed order."""
    root = wanted.roots[package.name]
    mine = [entry for entry in sets_of(*ICONIFY) if package_of(entry) == package]
    yield from ((entry.path, _cut_set(entry, wanted)) for entry in sorted(mine, key=lambda entry: entry.path))
    for entry in sets_of("files-by-code-point"):
        if package_of(entry) == package:
            found = (
                path for path in sorted((root / entry.path).glob("*.webp")) if bare_code(path.stem) in wanted.codes
            )
            yield from ((str(path.relative_to(root)), path.read_bytes()) for path in found)
    for entry in sets_of("files-by-title"):
        if package_of(entry) == package:
            names = sorted(f"{job.name}.svg" for job in clipart_jobs(entry, wanted.nouns, wanted.roots))
            yield from ((f"{entry.path}/{name}", (root / entry.path / name).read_bytes()) for name in names)
    cutters = {"dict/data.noun": cut_nouns, "dict/index.sense": cut_senses}
    for member in package.members:
        if member.endswith("/") or any(member == entry.path for entry in mine):
            continue
        content = (root / member).read_bytes()
        yield member, cutters[member](content.decode()).encode() if member in cutters else content


def _cut_set(entry: PictureSet, wanted: Wanted) -> bytes:
    data = read_iconify(entry, wanted.roots)
    return cut_set(data, used_icons(entry, data, wanted))


def all_cut(roots: dict[str, Path]) -> Iterator[tuple[Package, Iterator[tuple[str, bytes]]]]:
    """Every package with its cut-down files."""
    wanted = wanted_pictures(roots)
    yield from ((package, cut_files(package, wanted)) for package in PACKAGES)
