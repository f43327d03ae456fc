"""`python -m recipes.embedded.candidate RUN --tokenizer PACK --out FILE`: a run as a model file that could ship.

The same packing, settings and card as the model that ships now, so that the file can take its place; with --student
also the few-step student beside it, fast.safetensors, which is for that file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stable_diffusion.errors import StableDiffusionError
from stable_diffusion.training.export import export
from stable_diffusion.training.student_file import save_student
from stable_diffusion.weights.load import load_parts

SHIPPED = Path(__file__).resolve().parents[2] / "src/stable_diffusion/embedded/model.safetensors"
STUDENT, NUMBERS = "fast.safetensors", 940_000
MEBIBYTE = 2**20


def write_candidate(run: Path, out: Path, *, tokenizer: Path, like: Path = SHIPPED) -> Path:
    """The model file of a denoiser's run in 8 bits, with the defaults and the card of the model `like`."""
    parts = load_parts(like)
    return export(run, out, tokenizer=tokenizer, dtype="int8", defaults=parts.defaults, card=parts.card)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files and say how large they are."""
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded.candidate", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of the denoiser")
    parser.add_argument("--tokenizer", type=Path, required=True, help="the data pack, or its tokenizer.json")
    parser.add_argument("--like", type=Path, default=SHIPPED, help="model whose defaults and card it has")
    parser.add_argument("--student", type=Path, help="run folder of its student, where that is trained")
    parser.add_argument("--out", type=Path, required=True, help="model file")
    given = parser.parse_args(arguments)
    try:
        made = [write_candidate(given.run, given.out, tokenizer=given.tokenizer, like=given.like)]
        if given.student:
            made.append(save_student(given.student, given.out.with_name(STUDENT), budget=NUMBERS, base=given.out))
    except StableDiffusionError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for path in made:
        sys.stderr.write(f"{path}: {path.stat().st_size / MEBIBYTE:.2f} MiB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
