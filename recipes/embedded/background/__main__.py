"""`python -m recipes.embedded.background --data PACK --out RUNS`: train behind everything else, as long as it lasts.

At the lowest priority, with as many threads as others leave cores idle. Stop it with Ctrl-C or SIGTERM (after the step
in hand, with a checkpoint) or kill it; the same command goes on. While the file PAUSE exists it rests. What it did is
in RUNS/background.jsonl, and in RUNS/PIECE/log.jsonl step by step.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stable_diffusion.errors import StableDiffusionError

from ..candidate import SHIPPED
from .curriculum import CURRICULUM, read_curriculum
from .runner import Background, Place


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and train; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.embedded.background", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run folders and of the log")
    parser.add_argument("--curriculum", type=Path, default=CURRICULUM)
    parser.add_argument("--model", type=Path, default=SHIPPED, help="what to start from (default: the shipped model)")
    parser.add_argument("--pause", type=Path, help="rest while this file exists (default: OUT/PAUSE)")
    parser.add_argument("--pieces", type=int, help="end after so many pieces (default: never)")
    given = parser.parse_args(arguments)
    os.nice(19)
    pause = given.pause if given.pause is not None else given.out / "PAUSE"
    place = Place(data=given.data, out=given.out, model=given.model, pause=pause)
    try:
        Background(read_curriculum(given.curriculum), place, report).run(given.pieces)
    except StableDiffusionError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
