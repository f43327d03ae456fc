"""The plots of the report, drawn with matplotlib where it is installed (the extra `train`)."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from typing import Any

from .report import Alignment, Report

INK, SOFT, CHANCE = "#2f6fe4", "#c9d6ee", "#e5322d"


def can_plot() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def plots(report: Report) -> Iterator[tuple[str, bytes]]:
    """(title, PNG file) of every plot that the report has numbers for; none without matplotlib."""
    if not can_plot():
        return
    if report.alignment is not None:
        yield "Alignment: painted, real, and chance", _alignment(report.alignment)
    if report.stability is not None and report.stability.sensitivity:
        rows = report.stability.sensitivity
        names = [f"{row.setting} {row.value}" for row in rows]
        yield "Sensitivity: PSNR to the model's own settings (dB)", _bars(names, [row.psnr for row in rows], "dB")
    if report.diversity is not None and report.diversity.vendi_by_prompt:
        found = report.diversity
        values = list(found.vendi_by_prompt)
        yield f"Diversity: Vendi score of {found.seeds} seeds", _bars(list(found.prompts), values, "pictures in effect")


def alignment_rows(found: Alignment) -> dict[str, tuple[Any, Any]]:
    """Question -> (score of painted pictures or of words, score of real pictures or None)."""
    names = ("retrieval", "retrieval_chinese", "colour", "counting", "relations", "style")
    rows: dict[str, tuple[Any, Any]] = {name: (getattr(found, name), found.real.get(name)) for name in names}
    rows["chinese_picture"] = (found.chinese_picture, None)
    return rows | {"synonyms": (found.synonyms, None), "chinese_words": (found.chinese_words, None)}


def _alignment(found: Alignment) -> bytes:
    from matplotlib.figure import Figure

    rows = alignment_rows(found)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for place, (score, real) in enumerate(rows.values()):
        axes.barh(place + 0.2, score.value, 0.38, xerr=score.error, color=INK)
        if real is not None:
            axes.barh(place - 0.2, real.value, 0.38, xerr=real.error, color=SOFT)
        axes.plot([score.chance] * 2, [place - 0.45, place + 0.45], color=CHANCE)
    axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows])
    axes.set_xlim(0, 1)
    axes.set_xlabel("share right (dark: painted or words, light: real pictures, red: chance)")
    axes.invert_yaxis()
    return _png(figure)


def _bars(names: list[str], values: list[float], unit: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), values, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(unit)
    axes.invert_yaxis()
    return _png(figure)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()
