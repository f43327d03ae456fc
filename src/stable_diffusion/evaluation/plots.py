"""The plots of the report, drawn with matplotlib where it is installed (the extra `train`)."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from typing import Any

from ..data.similarity import CEILING
from .report import Alignment, Report, Score, Sensitivity

INK, SOFT, CHANCE, REAL = "#2f6fe4", "#5d6877", "#d64541", "#2f9e6e"


def can_plot() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def plots(report: Report) -> Iterator[tuple[str, str, bytes]]:
    """(section, title, PNG file) of every plot that the report has numbers for; none without matplotlib."""
    if not can_plot():
        return
    if report.alignment is not None:
        yield "alignment", "All questions: painted pictures, real pictures and chance", _alignment(report.alignment)
    if report.diversity is not None and report.diversity.vendi_by_prompt:
        found = report.diversity
        title = f"How many of {found.seeds} seeds are different pictures, in effect, for each sentence"
        yield "diversity", title, _bars(list(found.prompts), list(found.vendi_by_prompt), "", (1, found.seeds))
    if report.stability is not None and report.stability.sensitivity:
        title = "What a change of settings does: likeness to the picture with the model's own settings"
        yield "stability", title, _sensitivity(report.stability.sensitivity)


def alignment_rows(found: Alignment) -> dict[str, tuple[Score, Score | None]]:
    """Question -> (score of painted pictures or of words, score of real pictures or None)."""
    names = ("retrieval", "retrieval_chinese", "colour", "counting", "relations", "style")
    rows: dict[str, tuple[Score, Score | None]] = {name: (getattr(found, name), found.real.get(name)) for name in names}
    rows["chinese_picture"] = (found.chinese_picture, None)
    return rows | {"synonyms": (found.synonyms, None), "chinese_words": (found.chinese_words, None)}


def _alignment(found: Alignment) -> bytes:
    rows = alignment_rows(found)
    figure, axes = _axes(0.42 * len(rows) + 1.0)
    for place, (score, real) in enumerate(rows.values()):
        axes.barh(place, 100 * score.value, 0.5, xerr=100 * score.error, color=INK, error_kw={"ecolor": SOFT})
        if real is not None:
            axes.plot(100 * real.value, place, "D", color=REAL, markersize=6)
        axes.plot([100 * score.chance] * 2, [place - 0.35, place + 0.35], color=CHANCE, linewidth=2.5)
    axes.plot([], [], "D", color=REAL, label="real pictures")
    axes.plot([], [], color=CHANCE, linewidth=2.5, label="chance")
    axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows])
    axes.set_xlim(0, 100)
    axes.set_xlabel("per cent right")
    axes.invert_yaxis()
    figure.legend(loc="outside lower right", ncols=2, frameon=False)
    return _png(figure)


def _sensitivity(rows: tuple[Sensitivity, ...]) -> bytes:
    names = [f"{row.setting} {row.value}" for row in rows]
    return _bars(names, [row.psnr for row in rows], "PSNR in dB (above 30 hard to see)", (0, 60))


def _bars(names: list[str], values: list[float], unit: str, limits: tuple[float, float]) -> bytes:
    figure, axes = _axes(0.7 + 0.36 * len(names))
    shown = [min(max(value, limits[0]), limits[1]) for value in values]
    axes.barh(range(len(names)), [value - limits[0] for value in shown], 0.55, left=limits[0], color=INK)
    for place, (value, end) in enumerate(zip(values, shown, strict=True)):
        text = "equal" if value >= CEILING else f"{value:.1f}"
        axes.annotate(f" {text}", (end, place), va="center", color=SOFT)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(*limits)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel(unit)
    axes.invert_yaxis()
    return _png(figure)


def _axes(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(left=False, labelcolor=SOFT)
    axes.xaxis.label.set_color(SOFT)
    axes.grid(axis="x", color="#e3e7ee")
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()
