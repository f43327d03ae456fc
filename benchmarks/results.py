"""The file of results: every run adds its rows, and replaces those of the same name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .machine import machine, product_rates
from .measure import Measured, in_turns
from .rows import Absent, Row

FILE = Path(__file__).parents[1] / "docs" / "performance.json"
RATES = "product_rates"


def run(row: Row, say: Callable[[str], object]) -> dict[str, Any]:
    """A row measured, as it is kept in the file."""
    calls, absent = {}, {}
    for side in row.sides:
        try:
            calls[side.name] = side.make()
        except Absent as reason:
            absent[side.name] = str(reason)
            say(f"  {side.name}: left out, {reason}")
    started = machine()["busy"]
    measured = in_turns(calls, row.repeats, warm=row.warm)
    for name, each in measured.items():
        say(f"  {name}: {each.median:.4g} {each.unit} (spread {each.spread:.2g}, processor {min(each.cpu):.3g} s)")
    return {
        "title": row.title,
        "flops": None if row.flops is None else row.flops(),
        "busy": started,
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "sides": {name: described(each) for name, each in measured.items()},
        "absent": absent,
        "goals": [{key: value for key, value in vars(goal).items() if value is not None} for goal in row.goals],
    }


def described(each: Measured) -> dict[str, Any]:
    """Median, least, spread and processor seconds of one side."""
    rounded = {"median": each.median, "least": min(each.values), "spread": each.spread, "cpu": sorted(each.cpu)[0]}
    figures = {name: float(f"{value:.5g}") for name, value in rounded.items()}
    return {**figures, "times": len(each.values), "unit": each.unit}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def add(path: Path, rows: dict[str, Any], quick: bool) -> None:
    """Put rows into a file, with what they depend on; the file appears whole."""
    found = read(path)
    about = {name: value for name, value in machine().items() if name != "busy"}
    if RATES not in found and not quick:
        found[RATES] = product_rates()
    found |= {"machine": about, "rows": {**found.get("rows", {}), **rows}}
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
