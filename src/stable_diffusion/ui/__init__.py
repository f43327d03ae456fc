"""The page: static files that the server hands out as they are, and no code that runs in Python."""

from __future__ import annotations

from pathlib import Path


def static_folder() -> Path:
    """The folder with `index.html` and all that it loads, every file below it fit to be served to anyone."""
    return Path(__file__).resolve().parent / "static"
