"""The small model that ships with the package: model.safetensors, its sha256, its model card and its licence;
and fast.safetensors, a LoRA that lets it paint in a few steps.

And what judges models where nothing else is given: tower.safetensors, an image tower beside the model's text encoder,
and heldout.zip, a few pictures that training never saw (`scripts/embedded_judges.py` makes both).
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
MODEL = FOLDER / "model.safetensors"
FAST = FOLDER / "fast.safetensors"
HASH = FOLDER / "model.sha256"
TOWER = FOLDER / "tower.safetensors"
PICTURES = FOLDER / "heldout.zip"


def model_path() -> Path | None:
    """The built-in model's file, or None where it is missing from the installation."""
    return MODEL if MODEL.is_file() else None


def fast_path() -> Path | None:
    """The file that makes the built-in model paint in a few steps, or None where it is missing."""
    return FAST if FAST.is_file() else None


def recorded_hash() -> str | None:
    """The sha256 that the built-in model had when it was shipped, or None where none was recorded."""
    return HASH.read_text(encoding="ascii").split()[0] if HASH.is_file() else None


def tower_path() -> Path | None:
    """The built-in image tower's file, or None where it is missing from the installation."""
    return TOWER if TOWER.is_file() else None


def pictures_path() -> Path | None:
    """The file of built-in held-out pictures, or None where it is missing from the installation."""
    return PICTURES if PICTURES.is_file() else None
