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


def adapter_hash(path: Path) -> str:
    """sha256 of a .safetensors file without its header, which trainers and A1111 use for adapters since editing the
    metadata leaves it as it is; of the whole file for other formats."""
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        is_safetensors = start[8:9] == b"{" and length < path.stat().st_size
        file.seek(8 + length if is_safetensors else 0)
        return hashlib.file_digest(file, "sha256").hexdigest()
