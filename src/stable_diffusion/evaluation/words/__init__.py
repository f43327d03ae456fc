"""The word lists that the alignment measurements are made of: tab-separated files beside this one."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def table(name: str) -> list[list[str]]:
    """Rows of NAME.tsv, without comments and empty lines."""
    lines = (FOLDER / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]
