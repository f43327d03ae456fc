"""The user's folder of what can be made again: where it is, and how large it may become."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import InvalidRequest

CACHE_FOLDER = "STABLE_DIFFUSION_CACHE"
"""Environment variable: the folder of what can be made again."""
CACHE_LIMIT = "STABLE_DIFFUSION_CACHE_GB"
"""Environment variable: how many gigabytes each kind of converted network may take in it."""
DEFAULT_LIMIT = 20e9
"""Bytes."""


def cache_folder() -> Path:
    """Where this user keeps what can be made again: STABLE_DIFFUSION_CACHE, or `stable-diffusion` in the system's
    folder for such files."""
    given = os.environ.get(CACHE_FOLDER)
    if given:
        return Path(given).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "stable-diffusion"


def cache_limit() -> int:
    """Bytes that the converted networks of one kind may take. InvalidRequest where the variable is no number of at
    least 0."""
    given = os.environ.get(CACHE_LIMIT, "")
    if not given:
        return int(DEFAULT_LIMIT)
    try:
        limit = float(given)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < 1e9:
        raise InvalidRequest(f"{CACHE_LIMIT} is {given!r}; expected gigabytes, such as 20")
    return int(limit * 1e9)
