"""Clip art of the Debian package: SVG files whose title, or whose file name, is one of our nouns.

Old drawings of many hands: left out are files with text, pictures in them or unusual size, folders of flags, signs,
logos and patterns, and the names in words/dropped_clipart.tsv. Every file is drawn in a process of its own that may
take `SECONDS`, because some drawings never end.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from multiprocessing import Pool, TimeoutError
from pathlib import Path

from .nouns import Noun
from .objects import Job, render_job
from .render import Picture
from .sources import PictureSet, package_of
from .words import rows, slug

SECONDS = 20.0
LARGEST = 400_000
UNITS = {"pt": 4 / 3, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0, "pc": 16.0}
MOST = 6
"""Pictures of one noun."""
FOLDERS_LEFT_OUT = (
    "shapes", "logos", "special", "decorations", "signs_and_symbols/flags", "signs_and_symbols/led", "unsorted/dup",
    "computer/icons", "transportation/roadsigns", "recreation/games/cards", "geography", "signs_and_symbols/aiga",
    "signs_and_symbols/map_symbols", "signs_and_symbols/money",
)  # fmt: skip
FORBIDDEN = re.compile(r"<(svg:)?(text|image|flowRoot|foreignObject)\b")


def sized(svg: str) -> str:
    """The document with its size in numbers and a view box: old drawings give points or millimetres, or no box."""
    root = re.search(r"<(?:svg:)?svg\b[^>]*>", svg)
    if root is None:
        return svg
    tag, sizes = root.group(), []
    for name in ("width", "height"):
        found = re.search(rf'\s{name}\s*=\s*["\']\s*([\d.]+)\s*([a-z]*)', tag)
        sizes.append(float(found.group(1)) * UNITS.get(found.group(2), 1.0) if found else 1000.0)
    new = re.sub(r"\s(width|height)\s*=\s*([\"']).*?\2", "", tag)
    box = "" if "viewBox" in new else f' viewBox="0 0 {sizes[0]:g} {sizes[1]:g}"'
    end = "/>" if new.endswith("/>") else ">"
    new = f'{new.removesuffix(end)} width="{sizes[0]:g}" height="{sizes[1]:g}"{box}{end}'
    return svg.replace(tag, new, 1)


def title_of(text: str) -> str:
    """The title in a drawing's metadata, or nothing."""
    found = re.search(r"<dc:title[^>]*>([^<]*)<", text)
    return html.unescape(found.group(1)).strip() if found else ""


def spellings(title: str, stem: str) -> Iterator[str]:
    """Slugs that may name what a file shows: its title without brackets and numbers, then its file name likewise."""
    for name in (re.sub(r"\(.*?\)|#?\d+", " ", title), re.sub(r"[_\d]+", " ", stem)):
        whole = slug(name)
        yield whole
        yield re.sub(r"^(a|an|the|simple|cartoon|color|colour|small|big|old|my|some)-", "", whole)
        yield whole.removesuffix("s")


def head_of(title: str) -> Iterator[str]:
    """The last two words and the last word of a short title: 'brown bear', 'bear'."""
    words = slug(re.sub(r"\(.*?\)|\d+", " ", title)).split("-")
    if 2 <= len(words) <= 3 and "by" not in words:
        yield "-".join(words[-2:])
        yield words[-1]


def noun_of(title: str, stem: str, nouns: Mapping[str, Noun]) -> Noun | None:
    """The noun that a file shows, if its name says one."""
    joined = {name.replace("-", ""): noun for name, noun in nouns.items()}
    exact = next((nouns.get(s) or joined.get(s) for s in spellings(title, stem) if s in nouns or s in joined), None)
    return exact or next((nouns[s] for s in head_of(title) if s in nouns), None)


def clipart_jobs(entry: PictureSet, nouns: Mapping[str, Noun], roots: Mapping[str, Path]) -> list[Job]:
    """Every usable drawing that is a noun, at most `MOST` of one noun."""
    root, counts, jobs = roots[package_of(entry).name] / entry.path, Counter[str](), []
    dropped = [row[0] for row in rows("dropped_clipart.tsv")]
    for path in sorted(root.rglob("*.svg")):
        name = str(path.relative_to(root)).removesuffix(".svg")
        if (
            name.startswith(FOLDERS_LEFT_OUT)
            or any(fnmatch(name, pattern) for pattern in dropped)
            or path.stat().st_size > LARGEST
        ):
            continue
        text = path.read_text("utf-8", errors="replace")
        noun = noun_of(title_of(text), path.stem, nouns)
        if noun is None or counts[noun.concept] == MOST or FORBIDDEN.search(text):
            continue
        counts[noun.concept] += 1
        jobs.append(
            Job(
                concept=noun.concept, source=entry.name, style=entry.style, licence=entry.licence, colour=None,
                svg=sized(text), name=name,
            )
        )  # fmt: skip
    return jobs


def render_guarded(jobs: Sequence[Job], size: int, workers: int = 1) -> Iterator[tuple[Job, Picture]]:
    """Render a few at a time, in order, in processes that are ended when a drawing takes too long; broken ones are left
    out."""
    pools = [Pool(1) for _ in range(max(1, workers))]
    try:
        for start in range(0, len(jobs), len(pools)):
            given = jobs[start : start + len(pools)]
            asked = [pool.apply_async(render_job, ((job, size),)) for job, pool in zip(given, pools, strict=False)]
            for number, (job, answer) in enumerate(zip(given, asked, strict=True)):
                try:
                    picture = answer.get(SECONDS)
                except TimeoutError:
                    pools[number].terminate()
                    pools[number] = Pool(1)
                    continue
                except Exception:  # the renderer's own errors: a file that is no valid SVG
                    continue
                if picture is not None:
                    yield job, picture
    finally:
        for pool in pools:
            pool.terminate()
