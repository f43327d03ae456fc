"""Files and folders that appear under their name only when they are complete: a temporary one, then a rename; and
folders of such entries that stay within a limit."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

ABANDONED = 24 * 3600
"""Seconds after which a temporary file or folder has no writer any more."""


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` once it is complete and on the disk, and vanishes on any error.

    Errors of the disk come as they are, for callers with words of their own.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """A new folder that becomes `place` once the block is through, and vanishes on any error.

    Errors of the disk come as they are; OSError too where `place` is a file, or a folder with something in it.
    """
    temporary = _temporary(place)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """In the same folder, since a rename is atomic only within a file system."""
    return path.parent / f".{path.name[:40]}.{secrets.token_hex(6)}.part"


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; systems that cannot open folders (Windows) do without."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def size_of(entry: Path) -> int:
    """Bytes of a file, or of the files in a folder; 0 where another process has removed it."""
    with suppress(OSError):
        return sum(each.stat().st_size for each in (entry.iterdir() if entry.is_dir() else (entry,)))
    return 0


def make_room(folder: Path, room: int, *, now: float, keep: Path | None = None) -> None:
    """Remove entries of `folder`, those used least recently first, until the others take `room` bytes at most, and what
    processes that were killed left there; `keep` stays. now: seconds of the clock that files are dated with.

    An entry is a file or folder whose name begins with no dot. What the disk refuses to remove stays.
    """
    for part in folder.glob(".*.part"):
        if now - _used(part) > ABANDONED:
            _remove(part)
    entries = {entry: size_of(entry) for entry in folder.glob("[!.]*")}
    total = sum(entries.values())
    for entry in sorted(entries, key=_used):
        if total <= room:
            return
        if entry != keep:
            _remove(entry)
            total -= entries[entry]


def _used(entry: Path) -> float:
    """When it was written or read last; 0 where another process has removed it."""
    with suppress(OSError):
        return entry.stat().st_mtime
    return 0.0


def _remove(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with suppress(OSError):
            entry.unlink()
