"""Converted networks in the user's cache folder: whole or not there, and never more than a limit.

An entry is a folder of files with a list of their sizes and hashes. It is written beside its place and renamed, so that
whoever is killed half-way leaves a temporary folder and no entry; what does not match its list is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...atomic import make_room, size_of, whole_folder
from ...user_cache import cache_folder, cache_limit

LIST = "files.json"


class Store:
    """Folders by key under `folder`, together at most `limit` bytes; those used least recently go
    first.

    Several processes may use one: they may make the same entry at once, of which the first that is whole stays.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = cache_folder() / "openvino" if folder is None else folder
        self.limit = cache_limit() if limit is None else limit

    def entry(self, key: str, make: Callable[[Path], None]) -> Path:
        """The folder of a key, whole; `make` fills it where it is not there, or is damaged. OSError where the disk
        refuses."""
        place = self.folder / key
        if _is_whole(place):
            with suppress(OSError):
                os.utime(place)  # when it was last used
            return place
        shutil.rmtree(place, ignore_errors=True)
        try:
            with whole_folder(place) as folder:
                make(folder)
                (folder / LIST).write_text(json.dumps({each.name: _described(each) for each in folder.iterdir()}))
        except OSError:
            if not _is_whole(place):  # else another process has made it meanwhile
                raise
        make_room(self.folder, self.limit, now=time.time(), keep=place)
        return place

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(size_of(place) for place in self.folder.glob("[!.]*"))


def _described(path: Path) -> list[int | str]:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _is_whole(place: Path) -> bool:
    """Whether an entry holds the files of its list, unchanged."""
    try:
        files = json.loads((place / LIST).read_text())
        return bool(files) and all(_described(place / name) == described for name, described in files.items())
    except (OSError, ValueError, AttributeError):
        return False
