"""Rendering the emoji concepts in every style: one item per (concept, picture set)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from .colours import PAINT
from .concepts import Concept, bare_code
from .fetch import read_iconify
from .render import FILL, Picture, coverage, draw_svg, frame, iconify_svg, open_raster
from .sources import PictureSet, package_of

LEAST_COVERAGE = 0.01
FILL_ON_GROUND = 0.62
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One picture to render: an SVG document or a raster file."""

    concept: str
    source: str
    style: str
    licence: str
    colour: str | None
    name: str = ""  # the picture's own name in its set, where the concept does not tell it
    svg: str | None = None
    file: str | None = None
    ground: str | None = None  # named colour of a square behind the picture


def drawings(entry: PictureSet, roots: dict[str, Path]) -> dict[str, tuple[str | None, str | None]]:
    """Bare code point -> (SVG document, file) for one emoji set."""
    if "files-by-code-point" in entry.layouts:
        folder = roots[package_of(entry).name] / entry.path
        return {bare_code(path.stem): (None, str(path)) for path in sorted(folder.glob("*.webp"))}
    data = read_iconify(entry, roots)
    found: dict[str, tuple[str | None, str | None]] = {}
    for code, name in data["chars"].items():
        while name in data.get("aliases", {}):
            name = data["aliases"][name]["parent"]
        if name in data["icons"]:
            found[bare_code(code)] = (iconify_svg(data["icons"][name], data), None)
    return found


def emoji_jobs(concepts: Iterable[Concept], sets: Iterable[PictureSet], roots: dict[str, Path]) -> list[Job]:
    """Every concept in every emoji set that has it."""
    jobs = []
    concepts = list(concepts)
    for entry in sets:
        found = drawings(entry, roots)
        for concept in concepts:
            if concept.code in found:
                svg, file = found[concept.code]
                jobs.append(
                    Job(
                        concept=concept.id,
                        source=entry.name,
                        style=entry.style,
                        licence=entry.licence,
                        colour=concept.colour,
                        svg=svg,
                        file=file,
                    )
                )
    return jobs


def render_job(task: tuple[Job, int]) -> Picture | None:
    """One framed picture, or None when nothing visible came out."""
    job, size = task
    fill = FILL if job.ground is None else FILL_ON_GROUND
    image = draw_svg(job.svg, 2 * size) if job.svg is not None else open_raster(Path(job.file or ""))
    picture = frame(image, size, fill)
    if picture is None or coverage(picture) < LEAST_COVERAGE:
        return None
    return picture if job.ground is None else on_ground(picture, job.ground, corner=job.name)


def on_ground(picture: Picture, ground: str, corner: str) -> Picture:
    """A picture over a square of a named colour: to the edges, or with round corners (as `corner` decides)."""
    size, paint = len(picture), {**PAINT, "white": "#ffffff"}[ground]
    image = Image.new("RGBA", (size, size), paint)
    if random.Random(corner).random() < 0.5:
        svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" width="100" height="100">'
        image = draw_svg(svg + f'<rect x="4" y="4" width="92" height="92" rx="20" fill="{paint}"/></svg>', size)
    image.alpha_composite(Image.fromarray(picture, "RGBA"))
    return np.array(image)


def render_jobs(jobs: Sequence[Job], size: int, workers: int) -> Iterator[tuple[Job, Picture]]:
    """Render in parallel, in order, a few at a time; empty results are dropped."""
    for job, picture in zip(jobs, in_order(render_job, [(job, size) for job in jobs], workers), strict=True):
        if picture is not None:
            yield job, picture


def in_order(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    start: Callable[..., None] | None = None,
    given: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """`work` of every task, in order, by `workers` processes; each process first calls `start(*given)`."""
    if workers <= 1:
        if start is not None:
            start(*given)
        yield from map(work, tasks)
        return
    with Pool(workers, start, given) as pool:
        yield from pool.imap(work, tasks, chunksize=16)
