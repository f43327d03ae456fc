"""The transcripts and tables of docs/checkpoints.md: makes a file of every kind and writes down what `info` says of it.

python scripts/checkpoint_page.py            writes the page again
python scripts/checkpoint_page.py --check    exits with 1 where the page differs
"""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
import textwrap
from contextlib import chdir
from pathlib import Path

from checkpoint_matrix import tables
from click.testing import CliRunner
from page_kinds import KINDS, Kind

from stable_diffusion.cli.main import cli

PAGE = Path(__file__).parent.parent / "docs" / "checkpoints.md"
START, END = "<!-- made by scripts/checkpoint_page.py -->\n", "<!-- end -->\n"
TABLES = "<!-- made by scripts/checkpoint_matrix.py -->\n"
WIDTH = 118
"""Letters of a line; longer ones go on in the next, as on a terminal."""


def transcripts() -> str:
    """All kinds, each with its heading, a sentence, and what was typed and answered."""
    return "\n".join(map(section, KINDS))


def section(kind: Kind) -> str:
    """One kind, whose files lie in a folder of their own: some look for others beside them."""
    with tempfile.TemporaryDirectory() as place, chdir(Path(place)):
        kind.make()
        shown = "\n".join(f"$ {command}\n{answer(command)}" for command in kind.commands)
    says = f"{kind.says}\n\n" if kind.says else ""
    return f"### {kind.title}\n\n{says}```console\n{shown.rstrip()}\n```\n"


def answer(command: str) -> str:
    """What a command prints, stdout and stderr as a terminal shows them; a `grep -E` behind a pipe is done here."""
    typed, _, pattern = command.partition(" | grep -E ")
    result = CliRunner().invoke(cli, shlex.split(typed)[1:], prog_name="stable-diffusion")
    lines = result.output.splitlines()
    if pattern:
        lines = [line for line in lines if re.search(shlex.split(pattern)[0], line)]
    return "".join(f"{line}\n" for long in lines for line in textwrap.wrap(long, WIDTH))


def page(text: str, made: str, start: str = START) -> str:
    """The page with its transcripts, or what else begins with `start`, replaced."""
    before, rest = text.split(start)
    return f"{before}{start}\n{made}\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    new = page(page(text, transcripts()), tables(), TABLES)
    if "--check" in sys.argv[1:]:
        sys.exit(new != text)
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
