"""`python -m recipes.embedded.data --out DIR`: make the data pack of the embedded model."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from .build import SHARDS, build
from .makers import Options


def main() -> None:
    """Parse the command line and build; progress goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded.data", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pack")
    parser.add_argument(
        "--packages", type=Path, help="folder of downloaded packages (default: packages/ beside the pack)"
    )
    parser.add_argument("--size", type=int, default=Options.size, help="side of the pictures in pixels")
    parser.add_argument("--landscapes", type=int, default=Options.landscapes, help="scenes without placed things")
    parser.add_argument(
        "--placed", type=int, default=Options.placed, help="scenes with one or two things placed in them"
    )
    parser.add_argument("--large", type=int, default=Options.large, help="scenes with a single thing, drawn large")
    parser.add_argument("--counted", type=int, default=Options.counted, help="pictures of two or three of one thing")
    parser.add_argument("--seed", default=Options.seed)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="use this tokenizer.json, or that of this model (.safetensors), instead of training one",
    )
    parser.add_argument("--shards", nargs="+", choices=SHARDS, default=SHARDS, help="make only these")
    given = parser.parse_args()
    start = time.monotonic()

    def report(line: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {line}", file=sys.stderr, flush=True)

    numbers = {name: getattr(given, name) for name in ("size", "landscapes", "placed", "large", "counted")}
    options = Options(seed=given.seed, **numbers)
    packages = given.packages if given.packages is not None else given.out.parent / "packages"
    shards = tuple(shard for shard in SHARDS if shard in given.shards)
    build(given.out, packages, options, given.workers, report, given.tokenizer, shards)


if __name__ == "__main__":
    main()
