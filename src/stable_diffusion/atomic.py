"""Files and folders that appear under their name only when they are complete: a temporary one, then a rename."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


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
