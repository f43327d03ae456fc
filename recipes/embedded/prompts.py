"""`python -m recipes.embedded.prompts PACK`: whether any prompt that judges a model is one of its training captions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from stable_diffusion.data.pack import Pack

PROMPTS = Path(__file__).with_name("prompts_120.txt")


def read_prompts(path: Path = PROMPTS) -> dict[str, list[str]]:
    """Group name -> prompts, in the file's order; prompts before any heading belong to the group ""."""
    groups: dict[str, list[str]] = {}
    name = ""
    for line in (line.strip() for line in path.read_text(encoding="utf-8").splitlines()):
        if line.startswith("##"):
            name = line.lstrip("#").strip()
        elif line and not line.startswith("#"):
            groups.setdefault(name, []).append(line)
    return groups


def plain(text: str) -> str:
    """A text without case, punctuation at its ends and doubled spaces."""
    return " ".join(text.lower().split()).strip(" .,!。，！")


def trained_on(prompts: Iterable[str], pack: Pack) -> list[str]:
    """Those of the prompts that are captions of the pack, word for word."""
    captions = {plain(text) for record in pack.records for text in (*record.english, *record.chinese)}
    return [prompt for prompt in prompts if plain(prompt) in captions]


def main(arguments: Sequence[str] | None = None) -> int:
    """Name the prompts that are captions; exit status 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded.prompts", description=__doc__)
    parser.add_argument("pack", type=Path, help="folder of a data pack")
    parser.add_argument("--prompts", type=Path, default=PROMPTS)
    given = parser.parse_args(arguments)
    groups = read_prompts(given.prompts)
    prompts = [prompt for group in groups.values() for prompt in group]
    found = trained_on(prompts, Pack(given.pack))
    for prompt in found:
        sys.stderr.write(f"a training caption: {prompt}\n")
    sys.stderr.write(f"{len(found)} of {len(prompts)} prompts are training captions\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
