"""The data stage from packages to pack: fetch, render, recolour, compose, caption, split, tokenizer, pack.json.

Pictures are rendered again only when the code, tables or packages they depend on changed: every shard carries a stamp,
the hash of all that. Captions are written anew whenever anything changed; with nothing changed a run returns at once.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

from . import colours as colour_tools
from .captions import CHINESE_WORDS
from .concepts import Concept, emoji_concepts
from .fetch import fetch
from .glyphs import Glyph, glyph_jobs, read_glyphs
from .objects import Job, emoji_jobs, render_jobs
from .pack import read_lines, write_images, write_lines, write_pack, write_text
from .records import COMPOSED, Record, glyph_record, object_record, scene_record
from .render import Picture
from .scenes.compose import compose
from .scenes.graph import Placeable, Scene, Thing, read_placeables, sample_scene
from .scenes.phrases import chinese_phrases
from .sources import PACKAGES, check_sets, package_of
from .split import SPLIT_FILE, read_split
from .tokens import chinese_words, train_tokenizer, write_tokenizer
from .words import WORDS, rows

HERE = Path(__file__).resolve().parent
RECOLOURED_STYLES = ("3d", "flat", "emoji")
SHARDS = ("objects", "icons", "recoloured", "landscapes", "placed")
Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a pack is made of. `size`: pixels; `landscapes`, `placed`: numbers of scenes; `icon_colours`, `recolours`:
    how many of the named colours each icon and each recoloured object is drawn in."""

    size: int = 128
    landscapes: int = 3000
    placed: int = 2600
    icon_colours: int = 7
    recolours: int = 5
    vocabulary: int = 8000
    seed: str = "1"


def digest(options: Options, files: Sequence[Path]) -> str:
    """Hash of options, package versions and the content of files."""
    total = hashlib.sha256(json.dumps([asdict(options), [package.sha256 for package in PACKAGES]]).encode())
    for path in files:
        total.update(path.read_bytes())
    return total.hexdigest()


def code_files(*patterns: str) -> list[Path]:
    """Source files and word tables by glob pattern, in a fixed order."""
    return sorted({path for pattern in patterns for base in (HERE, WORDS) for path in base.glob(pattern)})


DRAWING = ("render.py", "sources.py", "objects.py", "concepts.py", "names.tsv", "dropped.tsv")
DEPENDS = {
    "objects": DRAWING,
    "icons": ("render.py", "sources.py", "glyphs.py", "glyphs.tsv", "colours.py", "colours.tsv"),
    "recoloured": (*DRAWING, "colours.py", "colours.tsv", "recolour.tsv"),
    "landscapes": ("render.py", "scenes/[!p]*.py", "scenes/pa*.py", "placeable.tsv"),
    "placed": (*DRAWING, "scenes/[!p]*.py", "scenes/pa*.py", "placeable.tsv"),
}


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything the stages share."""

    options: Options
    out: Path
    roots: dict[str, Path]
    workers: int
    concepts: dict[str, Concept]
    table: dict[str, Placeable]

    def assets(self) -> dict[tuple[str, str], Picture]:
        """(concept, style) -> rendered object, from the objects shard."""
        images = np.load(self.out / "objects/images.npy", mmap_mode="r")
        items = read_lines(self.out / "objects/items.jsonl")
        return {(item["concept"], item["style"]): images[index] for index, item in enumerate(items)}


def job_item(job: Job) -> dict[str, Any]:
    """What is kept of a job next to its picture."""
    return {name: value for name, value in asdict(job).items() if name not in ("svg", "file")}


def make_objects(world: World) -> tuple[list[dict[str, Any]], list[Picture]]:
    """All emoji concepts in all emoji styles."""
    jobs = emoji_jobs(world.concepts.values(), check_sets(), world.roots)
    done = render_jobs(jobs, world.options.size, world.workers)
    return [job_item(job) for job, _ in done], [picture for _, picture in done]


def make_icons(world: World) -> tuple[list[dict[str, Any]], list[Picture]]:
    """Every glyph in a seeded choice of the named colours."""
    jobs = []
    for job in glyph_jobs(read_glyphs(), check_sets(), world.roots):
        source = random.Random(f"{world.options.seed}{job.source}{job.name}")
        if job.colour in source.sample(
            sorted(colour_tools.PAINT), min(world.options.icon_colours, len(colour_tools.PAINT))
        ):
            jobs.append(job)
    done = render_jobs(jobs, world.options.size, world.workers)
    return [job_item(job) for job, _ in done], [picture for _, picture in done]


def make_recoloured(world: World) -> tuple[list[dict[str, Any]], list[Picture]]:
    """The objects of words/recolour.tsv in other colours, where a picture has one clear colour to replace."""
    assets, items, pictures = world.assets(), [], []
    kept = {(item["concept"], item["style"]): item for item in read_lines(world.out / "objects/items.jsonl")}
    for concept, own in rows("recolour.tsv"):
        for style in RECOLOURED_STYLES:
            if (concept, style) not in assets or not colour_tools.recolourable(assets[concept, style], own):
                continue
            source = random.Random(f"{world.options.seed}{concept}{style}")
            others = sorted(set(colour_tools.PAINT) - {own} - colour_tools.NEAR.get(own, frozenset()))
            for colour in source.sample(others, min(world.options.recolours, len(others))):
                items.append({**kept[concept, style], "colour": colour, "recoloured": True})
                pictures.append(colour_tools.recolour(assets[concept, style], colour))
    return items, pictures


ASSETS: dict[tuple[str, str], Picture] = {}


def use_assets(assets: dict[tuple[str, str], Picture]) -> None:
    """Give a worker process the pictures that scenes are composed from."""
    ASSETS.update(assets)


def one_asset(concept: str, style: str) -> Picture | None:
    """The asset of a worker process, or None when this style lacks the concept."""
    found = ASSETS.get((concept, style))
    return None if found is None else np.asarray(found)


def compose_one(scene: Scene, size: int, table: dict[str, Placeable]) -> Picture | None:
    """Compose in a worker process."""
    return compose(scene, size, one_asset, table)


def make_scenes(world: World, kind: str) -> tuple[list[dict[str, Any]], list[Picture]]:
    """Scenes without ("landscapes") or with ("placed") things in them."""
    count = getattr(world.options, kind)
    scenes = [sample_scene(f"{world.options.seed}-{kind}-{n}", kind == "placed", world.table) for n in range(count)]
    assets = (
        {key: np.array(value) for key, value in world.assets().items() if key[0] in world.table}
        if kind == "placed"
        else {}
    )
    draw = partial(compose_one, size=world.options.size, table=world.table)
    with Pool(world.workers, use_assets, (assets,)) as pool:
        pictures = pool.map(draw, scenes, chunksize=16)
    done = [(asdict(scene), picture) for scene, picture in zip(scenes, pictures, strict=True) if picture is not None]
    return [item for item, _ in done], [picture for _, picture in done]


MAKERS: dict[str, Callable[[World], tuple[list[dict[str, Any]], list[Picture]]]] = {
    "objects": make_objects,
    "icons": make_icons,
    "recoloured": make_recoloured,
    "landscapes": partial(make_scenes, kind="landscapes"),
    "placed": partial(make_scenes, kind="placed"),
}


def scene_of(item: dict[str, Any]) -> Scene:
    """A scene graph from its JSON."""
    return Scene(**{**item, "things": tuple(Thing(**thing) for thing in item["things"])})


def shard_records(world: World, shard: str) -> list[Record]:
    """Caption records of a shard's items."""
    items, split = read_lines(world.out / shard / "items.jsonl"), read_split()
    if shard == "icons":
        glyphs: dict[tuple[str, str], Glyph] = {(glyph.set, glyph.glyph): glyph for glyph in read_glyphs()}
        return [glyph_record(item, glyphs[item["source"], item["name"]], split) for item in items]
    if shard in ("objects", "recoloured"):
        return [object_record(item, world.concepts[item["concept"]], split) for item in items]
    licences = {entry.style: entry.licence for entry in check_sets()}
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
    names += [name for place in world.table.values() for name in place.chinese]
    return [*names, *colour_tools.COLOUR_NAMES.values(), *chinese_phrases(), *CHINESE_WORDS]


def render_shard(world: World, shard: str, report: Report) -> None:
    """Render a shard's pictures unless its stamp says they are there already."""
    key, stamp = digest(world.options, code_files(*DEPENDS[shard])), world.out / shard / "stamp.json"
    if stamp.exists() and json.loads(stamp.read_text())["key"] == key:
        return
    items, pictures = MAKERS[shard](world)
    write_images(world.out / shard, pictures)
    write_lines(world.out / shard / "items.jsonl", items)
    write_text(stamp, json.dumps({"key": key}))
    report(f"{shard}: {len(items)} pictures")


def build(out: Path, packages: Path, options: Options, workers: int = 2, report: Report = lambda line: None) -> None:
    """Make or bring up to date the pack in `out`. `packages`: where downloaded packages are kept."""
    stamp = out / "stamp.json"
    key = digest(options, [*code_files("**/*.py", "*.tsv"), SPLIT_FILE])
    if stamp.exists() and json.loads(stamp.read_text())["key"] == key and (out / "pack.json").exists():
        report("nothing to do: the pack is up to date")
        return
    roots = fetch(packages)
    concepts = {concept.id: concept for concept in emoji_concepts(roots["emojibase-data"])}
    world = World(options=options, out=out, roots=roots, workers=workers, concepts=concepts, table=read_placeables())
    everything: list[Record] = []
    for shard in SHARDS:
        render_shard(world, shard, report)
        records = shard_records(world, shard)
        write_lines(out / shard / "records.jsonl", records)
        everything += records
    texts = sorted(text for record in everything for texts in record["captions"].values() for text in texts)
    write_tokenizer(
        train_tokenizer(texts, chinese_words(vocabulary_names(world)), options.vocabulary), out / "tokenizer.json"
    )
    write_pack(out, options.size, SHARDS, sources_of(everything))
    write_text(stamp, json.dumps({"key": key}))
    held = sum(record["split"] == "heldout" for record in everything)
    report(f"pack: {len(everything)} pictures, {held} held out, {len(texts)} captions")
