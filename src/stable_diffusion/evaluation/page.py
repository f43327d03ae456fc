"""The report as one HTML file that needs nothing beside it: claims with their numbers, plots, and the pictures."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from string import Template

from PIL import Image

from ..pipeline.image import to_images
from ..weights.containers.atomic import atomic_file
from .cards import CLAIMS, Card, cards
from .plots import plots
from .report import Report, Shown
from .tables import Row, sections

TEMPLATE = Path(__file__).parent / "page.html"
THUMBNAIL = 144
"""Longest side in pixels of the pictures on the page."""


def save_page(report: Report, path: Path) -> None:
    """Write the page atomically."""
    with atomic_file(path) as file:
        file.write(page(report).encode())


def page(report: Report) -> str:
    """The whole page; every text in it is escaped."""
    model, settings = report.model, report.to_dict()
    kept = {name: settings[name] for name in ("model", "settings", "machine", "orders")}
    made, tables = cards(report), dict(sections(report))
    drawn: dict[str, list[str]] = {}
    for section, title, png in plots(report):
        drawn.setdefault(section, []).append(_plot(title, png))
    parts = [
        _section(name, made[name], tables[CLAIMS[name][0]], drawn.get(name, []), report.shown)
        for name in CLAIMS
        if name in made
    ]
    left_out = [(item.what, "", item.why) for item in report.left_out]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=html.escape(str(model["name"])),
        summary=html.escape(_summary(report)),
        links="\n".join(_link(name, made[name][0]) for name in CLAIMS if made.get(name)),
        sections="\n".join(parts),
        left_out=_table(left_out) if left_out else "<p>Nothing.</p>",
        settings=html.escape(json.dumps(kept, ensure_ascii=False, indent=1)),
    )


def _summary(report: Report) -> str:
    model, machine, defaults = report.model, report.machine, report.model["defaults"]
    return (
        f"{model['parameters']['together'] / 1e6:.1f} million parameters, {defaults['width']} x {defaults['height']} "
        f"pixels, {defaults['steps']} steps; {machine['dtype']} on {machine['device']}, threads: "
        f"{machine['threads']}. {len(report.orders)} requests in {report.seconds / 60:.1f} minutes."
    )


def _link(name: str, card: Card) -> str:
    title, question = CLAIMS[name]
    return (
        f'<a href="#{name}"><b>{html.escape(title)}</b><span>{html.escape(question)}</span>'
        f"<em>{html.escape(card.number)}</em><span>{html.escape(card.name)}</span></a>"
    )


def _section(name: str, made: list[Card], rows: list[Row], drawn: list[str], shown: tuple[Shown, ...]) -> str:
    title, question = CLAIMS[name]
    galleries = [_gallery(item) for item in shown if item.section == name]
    return "\n".join(
        [
            f'<section id="{name}"><h2>{html.escape(title)} <small>{html.escape(question)}</small></h2>',
            f'<div class="cards">{"".join(map(_card, made))}</div>',
            *galleries,
            *drawn,
            f"<details><summary>All numbers of this section</summary>{_table(rows)}</details></section>",
        ]
    )


def _card(card: Card) -> str:
    bar = ""
    if card.bar is not None:
        marks = "".join(
            f'<i class="{mark.what.split()[0]}" style="left:{_width(mark.place)}" title="{html.escape(mark.what)}"></i>'
            for mark in card.marks
        )
        bar = f'<div class="bar"><b style="width:{_width(card.bar)}"></b>{marks}</div>'
    return (
        f'<div class="card"><strong>{html.escape(card.number)}</strong><h3>{html.escape(card.name)}</h3>{bar}'
        f"<p>{html.escape(card.meaning)}</p></div>"
    )


def _width(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.1f}%"


def _table(rows: list[Row]) -> str:
    lines = [
        f'<tr><td>{html.escape(what)}</td><td class="number">{html.escape(value)}</td>'
        f'<td class="note">{html.escape(note)}</td></tr>'
        for what, value, note in rows
    ]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _plot(title: str, png: bytes) -> str:
    uri = "data:image/png;base64," + base64.b64encode(png).decode()
    return f'<h3>{html.escape(title)}</h3><img class="plot" alt="{html.escape(title)}" src="{uri}">'


def _gallery(shown: Shown) -> str:
    pictures = [_picture(image) for image in to_images(shown.pictures)]
    groups = [pictures[k : k + shown.together] for k in range(0, len(pictures), shown.together)]
    cells = [
        f'<figure>{"".join(group)}<figcaption title="{caption}">{caption}</figcaption></figure>'
        for caption, group in zip(map(html.escape, shown.captions), groups, strict=True)
    ]
    return (
        f'<h3>{html.escape(shown.title)}</h3><div class="gallery" style="--together:{shown.together}">'
        f"{''.join(cells)}</div>"
    )


def _picture(image: Image.Image) -> str:
    """A thumbnail inside the page: WebP, a tenth of the PNG's bytes."""
    image = image.copy()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=80, method=4)
    return f'<img alt="" loading="lazy" src="data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}">'
