"""The report as one HTML file that needs nothing beside it: tables, plots, and the pictures themselves."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator
from pathlib import Path
from string import Template

from PIL import Image

from ..pipeline.image import to_images
from ..weights.safetensors_writer import atomic_file
from .plots import alignment_rows, plots
from .report import Alignment, Diversity, Efficiency, Quality, Report, Score, Shown, Stability

TEMPLATE = Path(__file__).parent / "page.html"
Row = tuple[str, str, str]
"""What was measured, the number as text, and what it is to be compared with."""


def save_page(report: Report, path: Path) -> None:
    """Write the page atomically."""
    with atomic_file(path) as file:
        file.write(page(report).encode())


def page(report: Report) -> str:
    """The whole page; every text in it is escaped."""
    model, settings = report.model, report.to_dict()
    kept = {name: settings[name] for name in ("model", "settings", "machine", "orders")}
    tables = [f"<h2>{html.escape(title)}</h2>{_table(rows)}" for title, rows in sections(report)]
    drawn = [f'<h2>{html.escape(title)}</h2><img class="plot" src="{_uri(png)}">' for title, png in plots(report)]
    left_out = [(item.what, "", item.why) for item in report.left_out]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=html.escape(str(model["name"])),
        summary=html.escape(
            f"{model['family']}, hash {model['hash']}, {report.machine['dtype']} on {report.machine['device']}, "
            f"{len(report.orders)} pictures in {report.seconds / 60:.1f} minutes."
        ),
        sections="\n".join(tables),
        left_out=_table(left_out) if left_out else "<p>Nothing.</p>",
        plots="\n".join(drawn),
        galleries="\n".join(_gallery(shown) for shown in report.shown),
        settings=html.escape(json.dumps(kept, ensure_ascii=False, indent=1)),
    )


def sections(report: Report) -> Iterator[tuple[str, list[Row]]]:
    """Title and rows of every section that was measured; what the terminal shows, too."""
    if report.quality is not None:
        yield "Quality", list(_quality(report.quality))
    if report.alignment is not None:
        yield "Alignment", list(_alignment(report.alignment))
    if report.diversity is not None:
        yield "Diversity", list(_diversity(report.diversity))
    if report.stability is not None:
        yield "Stability", list(_stability(report.stability))
    if report.efficiency is not None:
        yield "Efficiency", list(_efficiency(report.efficiency))


def _quality(found: Quality) -> Iterator[Row]:
    if found.frechet is not None and found.kernel is not None:
        of = f"{found.painted} painted, {found.held_out} held-out pictures"
        yield "Fréchet distance", f"{found.frechet:.4g}", f"{of}; training pictures: {found.frechet_of_training:.4g}"
        yield "kernel distance", f"{found.kernel:.4g}", f"training pictures: {found.kernel_of_training:.4g}"
    if found.psnr is not None and found.ssim is not None:
        yield "reconstruction, PSNR", f"{found.psnr:.2f} dB", f"{found.reconstructed} held-out pictures, over white"
        yield "reconstruction, SSIM", f"{found.ssim:.4f}", ""
    if found.alpha_iou is not None:
        yield "reconstruction, alpha IoU", f"{found.alpha_iou:.4f}", ""


def _alignment(found: Alignment) -> Iterator[Row]:
    for name, (score, real) in alignment_rows(found).items():
        note = f"chance {_percent(score.chance)}, of {score.count}"
        note += (
            "" if real is None else f"; real pictures {_score(real)}, chance {_percent(real.chance)}, of {real.count}"
        )
        yield name.replace("_", " "), _score(score), note
    yield "English and Chinese pictures, cosine", f"{found.chinese_cosine:.3f}", f"others: {found.other_cosine:.3f}"


def _diversity(found: Diversity) -> Iterator[Row]:
    of = f"{found.seeds} seeds of {len(found.prompts)} prompts"
    if found.vendi is not None:
        scale = (
            "" if found.vendi_of_held_out is None else f"; {found.seeds} real pictures: {found.vendi_of_held_out:.2f}"
        )
        yield "Vendi score", f"{found.vendi:.2f}", f"{of}, so at most {found.seeds}{scale}"
    if found.distance is not None:
        between = found.distance_between_prompts
        note = "" if between is None else f"between prompts: {between:.3f}"
        yield "mean pairwise distance", f"{found.distance:.3f}", note
    yield "mean pairwise distance of pixels", f"{found.pixel_distance:.3f}", of
    if found.repeated is not None and found.repeated_of_held_out is not None:
        note = f"nearer than {found.threshold:.2g}, 1st percentile of {found.training} training pictures; "
        yield (
            "repeats a training picture",
            _percent(found.repeated),
            f"{note}held out: {_percent(found.repeated_of_held_out)}",
        )
        note = f"held-out pictures: {found.nearest_training_of_held_out:.3f}"
        yield "median distance to the nearest", f"{found.nearest_training:.3f}", note


def _stability(found: Stability) -> Iterator[Row]:
    for item in found.equalities:
        note = "" if item.equal else f"largest difference {item.largest} of 255"
        yield f"equal bytes: {item.what}", "yes" if item.equal else "no", note
    yield "numbers not finite", f"{found.not_finite} of {found.pictures}", "pictures"
    yield (
        "of these with extreme settings",
        f"{found.extremes_not_finite} of {found.extremes}",
        "steps 1, 2; guidance 0, 1, 30",
    )
    for row in found.sensitivity:
        yield f"{row.setting} {row.value}", f"{row.psnr:.1f} dB", f"to the model's own settings; SSIM {row.ssim:.3f}"


def _efficiency(found: Efficiency) -> Iterator[Row]:
    yield "seconds per picture", f"{found.seconds:.3f}", f"{found.steps} steps, median of {found.timed}"
    if found.load_seconds is not None:
        yield "seconds to load", f"{found.load_seconds:.2f}", "in a new process"
    if found.peak_memory is not None:
        yield "peak memory", f"{found.peak_memory / 2**20:.0f} MiB", "of a process that loads and paints one picture"
    parts = f"text {found.flops_text / 1e9:.2f}, decoder {found.flops_decoder / 1e9:.2f}"
    yield "operations per picture", f"{found.flops / 1e9:.1f} GFLOP", parts
    peak = f"best matrix product here: {found.peak_flops / 1e9:.0f} GFLOP/s"
    yield "share of the machine's peak", _percent(found.share), peak


def _score(score: Score) -> str:
    return f"{100 * score.value:.1f} ± {100 * score.error:.1f} %"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _table(rows: list[Row]) -> str:
    lines = [
        f'<tr><td>{html.escape(what)}</td><td class="number">{html.escape(value)}</td>'
        f'<td class="note">{html.escape(note)}</td></tr>'
        for what, value, note in rows
    ]
    return "<table>" + "\n".join(lines) + "</table>"


def _gallery(shown: Shown) -> str:
    cells = [
        f'<figure><img src="{_uri(_png(image))}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        for caption, image in zip(shown.captions, to_images(shown.pictures), strict=True)
    ]
    return f'<h2>{html.escape(shown.title)}</h2><div class="gallery">{"".join(cells)}</div>'


def _png(image: Image.Image, side: int = 192) -> bytes:
    image = image.copy()
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
