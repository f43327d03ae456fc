"""What each shard is made of: streams of (item, picture), from jobs, recoloured objects or composed scenes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from . import colours as colour_tools
from .art import art_jobs, emoji_glyph_jobs, known_names
from .clipart import clipart_jobs, render_guarded
from .concepts import Concept, spoken_colour
from .counted import draw_group, sample_groups
from .glyphs import glyph_jobs, read_glyphs
from .nouns import chosen, ground_for, noun_glyph_jobs, noun_jobs, read_nouns
from .objects import Job, emoji_jobs, in_order, render_job, render_jobs
from .pack import read_lines
from .render import Picture
from .scenes.compose import compose
from .scenes.graph import Placeable, Scene, sample_large, sample_scene
from .sources import sets_of
from .words import rows

RECOLOURED_STYLES = ("3d", "flat", "emoji")
LEAST_COLOURED = 0.2
Made = Iterator[tuple[dict[str, Any], Picture]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a pack is made of. `size`: pixels; `landscapes`, `placed`, `large`: numbers of scenes; `counted`: number
    of pictures of two or three of a thing; `icon_colours`,
    `emoji_glyph_colours`, `noun_colours`, `recolours`: how many of the named colours each icon of the table, each
    single-colour emoji, each icon found by its noun and each recoloured object is drawn in; `on_ground`: number of
    icons on a coloured ground."""

    size: int = 128
    landscapes: int = 5000
    placed: int = 5000
    large: int = 3000
    counted: int = 4000
    icon_colours: int = 7
    emoji_glyph_colours: int = 3
    noun_colours: int = 2
    on_ground: int = 5000
    recolours: int = 5
    vocabulary: int = 8000
    seed: str = "1"


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything the stages share."""

    options: Options
    out: Path
    roots: dict[str, Path]
    workers: int
    concepts: dict[str, Concept]
    table: dict[str, Placeable]

    def drawn(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(concept, style) -> what is kept of a rendered object, from the objects shard."""
        items = read_lines(self.out / "objects/items.jsonl")
        return {(item["concept"], item["style"]): item for item in items}

    def assets(self) -> dict[tuple[str, str], Picture]:
        """(concept, style) -> rendered object, from the objects shard."""
        images = np.load(self.out / "objects/images.npy", mmap_mode="r")
        items = read_lines(self.out / "objects/items.jsonl")
        return {(item["concept"], item["style"]): images[index] for index, item in enumerate(items)}

    @cached_property
    def names(self) -> dict[str, str]:
        """Squeezed picture names -> concept ids."""
        return known_names(self.concepts.values(), sets_of("iconify-emoji"), self.roots)


def job_item(job: Job) -> dict[str, Any]:
    """What is kept of a job next to its picture."""
    return {name: value for name, value in asdict(job).items() if name not in ("svg", "file")}


def rendered(world: World, jobs: list[Job]) -> Made:
    """The pictures of jobs that show anything."""
    for job, picture in render_jobs(jobs, world.options.size, world.workers):
        yield job_item(job), picture


def make_objects(world: World) -> Made:
    """All emoji concepts in all emoji styles."""
    sets = sets_of("files-by-code-point", "iconify-emoji")
    return rendered(world, emoji_jobs(world.concepts.values(), sets, world.roots))


def make_art(world: World) -> Made:
    """The same concepts by other hands; a thing's usual colour is kept only where the picture has it."""
    jobs = [
        job for entry in sets_of("iconify-art") for job in art_jobs(world.concepts, entry, world.names, world.roots)
    ]
    for item, picture in rendered(world, jobs):
        colour = item["colour"]
        if colour is not None and not spoken_colour(item["concept"].replace("-", " ")):
            painted = colour in colour_tools.PAINT and colour_tools.recolourable(picture, colour, least=0.45)
            item["colour"] = colour if painted else None
        yield item, picture


def make_icons(world: World) -> Made:
    """Every glyph of the table in a seeded choice of the named colours."""
    jobs, colours = [], world.options.icon_colours
    for job in glyph_jobs(read_glyphs(), sets_of("iconify-glyph"), world.roots):
        source = random.Random(f"{world.options.seed}{job.source}{job.name}")
        if job.colour in source.sample(sorted(colour_tools.PAINT), min(colours, len(colour_tools.PAINT))):
            jobs.append(job)
    return rendered(world, jobs)


def make_emoji_glyphs(world: World) -> Made:
    """Single-colour emoji, each in a few colours."""
    given = (world.roots, world.options.emoji_glyph_colours, world.options.seed)
    sets = sets_of("iconify-emoji-glyph")
    return rendered(
        world, [job for entry in sets for job in emoji_glyph_jobs(world.concepts, entry, world.names, *given)]
    )


def make_nouns(world: World) -> Made:
    """Coloured icons of the larger world; those of sets in one hue are brought into named colours."""
    nouns = read_nouns(world.concepts.values())
    for entry in sets_of("iconify-noun"):
        yield from rendered(world, noun_jobs(entry, nouns, world.roots))
    size, workers = world.options.size, world.workers
    for entry in sets_of("iconify-noun-hue"):
        jobs = noun_jobs(entry, nouns, world.roots)
        paints = [sorted(chosen(f"{world.options.seed}{entry.name}{j.name}", world.options.noun_colours)) for j in jobs]
        tasks = [(job, size, tuple(colours)) for job, colours in zip(jobs, paints, strict=True)]
        for job, found in zip(jobs, in_order(render_in_colours, tasks, workers), strict=True):
            for colour, painted in found:
                yield {**job_item(job), "colour": colour, "recoloured": True}, painted


def render_in_colours(task: tuple[Job, int, tuple[str, ...]]) -> list[tuple[str, Picture]]:
    """A picture of a set in one hue in named colours, in a worker process; nothing where it has hardly any colour."""
    job, size, colours = task
    picture = render_job((job, size))
    if picture is None or colour_tools.coloured(picture) < LEAST_COLOURED:
        return []
    return list(colour_tools.in_colours(picture, colours))


def make_noun_glyphs(world: World) -> Made:
    """Single-colour icons of the larger world, each in a few colours."""
    return rendered(world, all_noun_glyphs(world))


def all_noun_glyphs(world: World) -> list[Job]:
    """Jobs of all single-colour icons found by their noun."""
    nouns = read_nouns(world.concepts.values())
    given = (world.roots, world.options.noun_colours, world.options.seed)
    return [job for entry in sets_of("iconify-noun-glyph") for job in noun_glyph_jobs(entry, nouns, *given)]


def make_on_ground(world: World) -> Made:
    """A seeded choice of single-colour icons on a square of another named colour."""
    jobs = [job for job in all_noun_glyphs(world) if job.style == "icon"]
    picked = random.Random(f"{world.options.seed}ground").sample(jobs, min(world.options.on_ground, len(jobs)))
    return rendered(
        world,
        [replace(job, ground=ground_for(job.colour or "", f"{job.source}{job.name}{job.colour}")) for job in picked],
    )


def make_clipart(world: World) -> Made:
    """Clip art of nouns."""
    nouns = read_nouns(world.concepts.values())
    for entry in sets_of("files-by-title"):
        for job, picture in render_guarded(clipart_jobs(entry, nouns, world.roots), world.options.size, world.workers):
            yield job_item(job), picture


def make_recoloured(world: World) -> Made:
    """The objects of words/recolour.tsv in other colours, where a picture has one clear colour to replace."""
    assets = world.assets()
    kept = world.drawn()
    tasks = []
    for concept, own in rows("recolour.tsv"):
        for style in RECOLOURED_STYLES:
            if (concept, style) in assets:
                source = random.Random(f"{world.options.seed}{concept}{style}")
                others = sorted(set(colour_tools.PAINT) - {own} - colour_tools.NEAR.get(own, frozenset()))
                paints = source.sample(others, min(world.options.recolours, len(others)))
                tasks.append((kept[concept, style], np.array(assets[concept, style]), own, tuple(paints)))
    for task, found in zip(tasks, in_order(other_colours, tasks, world.workers), strict=True):
        for colour, painted in found:
            yield {**task[0], "colour": colour, "recoloured": True}, painted


def other_colours(task: tuple[dict[str, Any], Picture, str, tuple[str, ...]]) -> list[tuple[str, Picture]]:
    """A picture in other colours than its own, in a worker process; nothing where it is not mainly in its own."""
    _, picture, own, paints = task
    return list(colour_tools.in_colours(picture, paints)) if colour_tools.recolourable(picture, own) else []


def make_counted(world: World) -> Made:
    """Two or three of one object on a transparent ground."""
    assets = world.assets()
    kept = world.drawn()
    for group in sample_groups(world.concepts.values(), assets, world.options.counted, world.options.seed):
        item = {**kept[group.concept, group.style], "number": group.number, "seed": group.seed}
        yield item, draw_group(group, assets[group.concept, group.style])


ASSETS: dict[tuple[str, str], Picture] = {}


def use_assets(assets: dict[tuple[str, str], Picture]) -> None:
    """Hand the placed pictures to a worker process."""
    ASSETS.update(assets)


def one_asset(concept: str, style: str) -> Picture | None:
    """A placed thing's picture, or None."""
    return ASSETS.get((concept, style))


def compose_one(scene: Scene, size: int, table: dict[str, Placeable]) -> Picture | None:
    """Compose in a worker process."""
    return compose(scene, size, one_asset, table)


def make_scenes(world: World, kind: str) -> Made:
    """Scenes without ("landscapes"), with ("placed") things in them, or with a single one drawn large ("large")."""
    seeds = [f"{world.options.seed}-{kind}-{n}" for n in range(getattr(world.options, kind))]
    if kind == "large":
        scenes = [sample_large(seed, world.table) for seed in seeds]
    else:
        scenes = [sample_scene(seed, kind == "placed", world.table) for seed in seeds]
    assets: dict[tuple[str, str], Picture] = {}
    if kind != "landscapes":
        assets = {key: np.array(value) for key, value in world.assets().items() if key[0] in world.table}
    draw = partial(compose_one, size=world.options.size, table=world.table)
    for scene, picture in zip(scenes, in_order(draw, scenes, world.workers, use_assets, (assets,)), strict=True):
        if picture is not None:
            yield asdict(scene), picture


MAKERS: dict[str, Callable[[World], Made]] = {
    "objects": make_objects,
    "art": make_art,
    "icons": make_icons,
    "emoji_glyphs": make_emoji_glyphs,
    "nouns": make_nouns,
    "noun_glyphs": make_noun_glyphs,
    "on_ground": make_on_ground,
    "clipart": make_clipart,
    "recoloured": make_recoloured,
    "counted": make_counted,
    "landscapes": partial(make_scenes, kind="landscapes"),
    "placed": partial(make_scenes, kind="placed"),
    "large": partial(make_scenes, kind="large"),
}
