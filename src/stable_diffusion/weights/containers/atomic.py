"""The files and folders of models and of training: whole or not there, and a ModelFileError where the disk refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...atomic import whole_file, whole_folder
from ...errors import InvalidRequest, ModelFileError


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` once it is complete and on the disk, and vanishes on any error."""
    path = Path(path)
    try:
        with whole_file(path) as file:
            yield file
    except OSError as error:
        raise _refused(path, error) from error


@contextmanager
def atomic_folder(place: Path) -> Iterator[Path]:
    """A new folder that becomes `place` once the block is through, and vanishes on any error."""
    try:
        with whole_folder(place) as temporary:
            yield temporary
            if os.path.lexists(place):
                raise InvalidRequest(f"{str(place)!r} exists; give a name that is free")
    except OSError as error:
        raise _refused(place, error) from error


def _refused(path: Path, error: OSError) -> ModelFileError:
    return ModelFileError(f"{path} could not be written ({error.strerror or error}); nothing was changed")
