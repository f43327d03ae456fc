"""The small model that ships with the package: model.safetensors, its sha256, its model card and its licence."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
MODEL = FOLDER / "model.safetensors"
HASH = FOLDER / "model.sha256"


def model_path() -> Path | None:
    """The built-in model's file, or None where it is missing from the installation."""
    return MODEL if MODEL.is_file() else None


def recorded_hash() -> str | None:
    """The sha256 that the built-in model had when it was shipped, or None where none was recorded."""
    return HASH.read_text(encoding="ascii").split()[0] if HASH.is_file() else None
