"""`python -m stable_diffusion.training STAGE --data DIR --out RUN --minutes 9`, as `stable-diffusion train` does it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ..errors import StableDiffusionError
from .config import STAGES
from .report import Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, train, print the last numbers as JSON on stdout; progress on stderr. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stable_diffusion.training", description=__doc__)
    parser.add_argument("stage", choices=sorted(STAGES))
    parser.add_argument("--data", required=True, help="folder of the data pack")
    parser.add_argument("--out", required=True, help="run folder: checkpoint, log, samples")
    parser.add_argument("--minutes", type=float, help="wall-clock budget of this call")
    parser.add_argument("--config", help="TOML file")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--resume", default="auto", help="auto, must or never")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    from .run import train

    try:
        last = train(
            given.stage,
            data=given.data,
            out=given.out,
            minutes=given.minutes,
            config=given.config,
            resume=given.resume,
            overrides=given.overrides,
            device=given.device,
            on_progress=show,
        )
    except StableDiffusionError as error:
        sys.stderr.write(f"\n{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the checkpoint is saved\n")
        return 130
    sys.stderr.write("\n")
    sys.stdout.write(json.dumps(last) + "\n")
    return 0


def show(progress: Progress) -> None:
    """One line on stderr, rewritten in place on a terminal."""
    line = progress.line()
    sys.stderr.write(f"\r\x1b[2K{line}" if sys.stderr.isatty() else f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
