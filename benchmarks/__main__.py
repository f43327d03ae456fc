"""`python -m benchmarks [--quick] [ROW ...]`; with `--page`, docs/performance.md is written from what was measured."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

from . import page, results
from .measure import peak_memory
from .rows import Row, every_row


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows to measure; all where none is named")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that the rows work, and measures nothing"
    )
    parser.add_argument("--list", action="store_true", help="the rows and their sides")
    parser.add_argument("--only", metavar="TEXT", help="only sides whose names contain this")
    parser.add_argument(
        "--memory", action="store_true", help="also peak memory: each side once, in a process of its own"
    )
    parser.add_argument("--alone", nargs=2, metavar=("ROW", "SIDE"), help="one call of one side; prints peak bytes")
    parser.add_argument("--threads", type=int, help="processor threads (torch's own choice)")
    parser.add_argument("--out", type=Path, help="file of results that rows are added to (docs/performance.json)")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md and its plot, and nothing else")
    options = parser.parse_args(given)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    found = {row.name: row for row in every_row(options.quick)}
    if options.list:
        for row in found.values():
            say(f"{row.name}: {row.title}\n" + "\n".join(f"  {side.name}" for side in row.sides))
        return 0
    if options.page:
        page.write(results.FILE if options.out is None else options.out)
        return 0
    if options.alone:
        return alone(found[options.alone[0]], options.alone[1])
    wrong = [name for name in options.rows if name not in found]
    if wrong:
        parser.error(f"there is no row {wrong[0]!r}; expected {', '.join(found)}")
    out = options.out or (None if options.quick else results.FILE)
    for name in options.rows or found:
        measure(found[name], options, out)
    return 0


def measure(row: Row, options: argparse.Namespace, out: Path | None) -> None:
    """One row, printed, and added to the file."""
    if options.only:
        row = Row(**{**vars(row), "sides": tuple(side for side in row.sides if options.only in side.name)})
    start = time.perf_counter()
    say(f"{row.name}: {row.title}")
    measured = results.run(row, say)
    if options.memory:
        for name, side in measured["sides"].items():
            side["peak"] = peak(row.name, name, options.quick)
            say(f"  {name}: at most {side['peak'] / 2**30:.2f} GiB")
    if out is not None:
        results.add(out, {row.name: measured}, options.quick)
    say(f"  ({time.perf_counter() - start:.0f} s)")


def peak(row: str, side: str, quick: bool) -> float:
    """Peak memory of a new process that makes a side and calls it once, in bytes."""
    command = [sys.executable, "-m", "benchmarks", *(["--quick"] if quick else []), "--alone", row, side]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return float(found.stdout.split()[-1])


def alone(row: Row, name: str) -> int:
    (side,) = (side for side in row.sides if side.name == name)
    side.make()()
    say(str(peak_memory()))
    return 0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
