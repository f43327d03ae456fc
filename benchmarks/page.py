"""docs/performance.md, written from the file of results: every sentence with a number in it is made from a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import plot
from .results import RATES, read

DOCS = Path(__file__).parents[1] / "docs"
WIDE_SPREAD = 0.25
"""Of the median; above it a row says that the machine was busy."""


def write(source: Path) -> None:
    """The page and its plot beside it."""
    found = read(source)
    (DOCS / "performance.md").write_text(text(found), encoding="utf-8")
    plot.draw(found, DOCS / "images" / "performance.svg")


def text(found: dict[str, Any]) -> str:
    """The page as Markdown."""
    rows = found.get("rows", {})
    parts = [_head(found), _goals(rows)]
    parts += [_row(name, row, found.get(RATES, {})) for name, row in sorted(rows.items())]
    notes = Path(__file__).parent / "notes.md"
    if notes.is_file():
        parts.append(notes.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts) + "\n"


def _head(found: dict[str, Any]) -> str:
    about = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    rates = ", ".join(f"{rate / 1e12:.2f} TFLOP/s in {name}" for name, rate in found.get(RATES, {}).items())
    return f"""# Performance

This page is written by `python -m benchmarks --page` from `docs/performance.json`, to which every run of
`python -m benchmarks` adds. All sides of a row have the same random weights of full size and were timed in turns
(A B C A B C). *Median* and *spread* (largest minus least) are of wall seconds; *processor* is the least number of
processor seconds of a call, over all cores: where wall seconds are more than processor seconds over {about["cores"]},
the machine was doing other work as well.

Machine: {about["processor"]}, {about["cores"]} cores ({", ".join(about["instructions"])}), {about["memory_gib"]} GiB,
{about["threads"]} threads. Versions: {versions}. Products of matrices run at {rates or "a rate that was not measured"}.

![Seconds of each side](images/performance.svg)"""


def _goals(rows: dict[str, Any]) -> str:
    lines = ["## Goals", "", "| row | what | goal | found | |", "|---|---|---|---|---|"]
    for name, row in sorted(rows.items()):
        for goal in row["goals"]:
            lines.append(_goal(name, row["sides"], goal))
    return "\n".join(lines)


def _goal(name: str, sides: dict[str, Any], goal: dict[str, Any]) -> str:
    ours, peer = goal["ours"], goal.get("peer")
    if ours not in sides or (peer is not None and peer not in sides):
        missing = ours if ours not in sides else peer
        wanted = f"{goal['least']:g}x {peer}" if peer else f"{goal['most']:g} {'or less'}"
        return f"| {name} | {ours} | {wanted} | - | not measured here: {missing} did not take part |"
    value, unit = sides[ours]["median"], sides[ours]["unit"]
    if peer is None:
        met = value <= goal["most"]
        return f"| {name} | {ours} | at most {goal['most']:g} {unit} | {_figure(value)} {unit} | {_verdict(met)} |"
    ratio = sides[peer]["median"] / value
    return f"| {name} | {ours} | {goal['least']:g}x {peer} | {ratio:.2f}x | {_verdict(ratio >= goal['least'])} |"


def _verdict(met: bool) -> str:
    return "met" if met else "**not met**"


def _row(name: str, row: dict[str, Any], rates: dict[str, float]) -> str:
    sides, flops = row["sides"], row.get("flops")
    memory = any("peak" in side for side in sides.values())
    first = next(iter(sides.values()))["median"] if sides else 1.0
    head = ["", "median", "spread", "processor, s", "ratio"] + (["of the machine's rate"] if flops else [])
    head += ["peak memory"] if memory else []
    lines = [f"## {name}", "", f"{row['title']}. Measured {row['when']} UTC.", ""]
    if flops:
        lines[2] += f" {flops / 1e12:.3f} TFLOP a call."
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for title, side in sides.items():
        cells = [title, f"{_figure(side['median'])} {side['unit']}", _figure(side["spread"]), _figure(side["cpu"])]
        cells.append(f"{side['median'] / first:.2f}")
        if flops:
            cells.append(_share(title, flops / side["median"], rates))
        if memory:
            cells.append(f"{side['peak'] / 2**30:.2f} GiB" if "peak" in side else "-")
        lines.append("| " + " | ".join(cells) + " |")
    if any(side["spread"] > WIDE_SPREAD * side["median"] for side in sides.values()):
        lines += ["", "Some spreads are above a quarter of their medians: the machine was busy meanwhile."]
    lines += [f"\nLeft out: {title} ({reason})." for title, reason in row["absent"].items()]
    return "\n".join(lines)


def _share(title: str, rate: float, rates: dict[str, float]) -> str:
    precision = next((each for each in ("int8", "bfloat16", "float32") if each in title), None)
    return f"{rate / rates[precision]:.0%} ({precision})" if precision in rates else "-"


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
