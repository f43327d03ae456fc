"""Hashes by which model files are known: sha256, the ten digits that A1111 prints, and its older eight digits."""

from __future__ import annotations

import hashlib
from pathlib import Path

SHORT = 10
"""Digits of sha256 in the `Model hash` of PNG text."""


def sha256(path: Path) -> str:
    """sha256 of the whole file, 64 hex digits; reads all of it (about a second per gigabyte)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def legacy_hash(path: Path) -> str:
    """First 8 hex digits of the sha256 of 64 KiB at offset 1 MiB: the model hash of A1111 before December 2022."""
    with path.open("rb") as file:
        file.seek(2**20)
        return hashlib.sha256(file.read(2**16)).hexdigest()[:8]
