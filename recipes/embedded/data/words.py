"""Reading the word tables in `recipes/embedded/words/`: tab-separated, `#` starts a comment, lists split by commas."""

from __future__ import annotations

import re
from pathlib import Path

WORDS = Path(__file__).resolve().parent.parent / "words"


def rows(name: str, folder: Path = WORDS) -> list[list[str]]:
    """The rows of one table as lists of stripped cells."""
    lines = (folder / name).read_text("utf-8").splitlines()
    return [[cell.strip() for cell in line.split("\t")] for line in lines if line.strip() and not line.startswith("#")]


def names(cell: str) -> tuple[str, ...]:
    """A comma-separated cell as a tuple without empty parts; Chinese commas count too."""
    return tuple(part.strip() for part in re.split("[,，]", cell) if part.strip())


def slug(text: str) -> str:
    """A file-safe identifier: lower case words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("’", "").replace("ñ", "n")).strip("-")
