"""What people look at in a browser: the static files of the page, and what serves or exports one panorama alone."""

from __future__ import annotations

from pathlib import Path


def static_folder() -> Path:
    """The folder with `index.html` and all that it loads, every file below it fit to be served to anyone."""
    return Path(__file__).resolve().parent / "static"
