"""The folder of a queue: where its files are, and that one program at a time works in it.

jobs.db                      the database, where no other is named
lock                         held while a service runs
pictures/2026-11-30/JOB-0000.png
.trash/2026-11-30/...        deleted pictures, for 30 days
inputs/ab/abcd...            uploaded pictures
thumbs/ab/PICTURE.webp
"""

from __future__ import annotations

import errno
import hashlib
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StableDiffusionError
from ..images import FORMATS, save_image
from ..request.writers.forms import KEY
from .errors import FolderInUse, JobError
from .records import Job

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..request.request import Request

NAME = re.compile(r"(?P<job>[0-9a-z]{6,32})-(?P<number>\d{4,})\.(?P<ending>png|webp|jpg|jpeg)")
"""Names of picture files, from which a gallery can be rebuilt."""
THUMBNAIL = 256
"""Longer side of a thumbnail, in pixels."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class DiskRefused(JobError):
    """The disk takes no more files: it is full, or the folder may not be written."""


class DataFolder:
    """The places of files; makes the folder where it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path).resolve()
        self.pictures, self.trash = self.path / "pictures", self.path / ".trash"
        self.inputs, self.thumbs = self.path / "inputs", self.path / "thumbs"
        self._lock: Any = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(f"{str(path)!r} cannot be made a folder: {error.strerror or error}") from error

    def lock(self) -> None:
        """Takes the folder for this program; FolderInUse where another one has it."""
        from filelock import FileLock, Timeout

        held = FileLock(self.path / "lock", thread_local=False)
        try:
            held.acquire(timeout=0)
        except Timeout:
            raise FolderInUse("another server works on this folder; end it first, or use another folder") from None
        except OSError as error:
            raise JobError(f"the folder cannot be locked: {error.strerror or error}") from error
        self._lock = held

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def remove_parts(self) -> None:
        """Removes the halves of files that a killed program left."""
        for folder in (self.pictures, self.trash, self.inputs, self.thumbs):
            for part in folder.rglob(".*.part"):
                with suppress(OSError):
                    part.unlink()

    def write(self, image: Image, name: str, seconds: float, job: Job, number: int, request: Request | None) -> Any:
        """Writes a picture as the command line does, and returns its row. DiskRefused where the disk refuses."""
        path = self.path / name
        try:
            save_image(image, path)
            data = path.read_bytes()
        except (OSError, StableDiffusionError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, OSError):
                raise DiskRefused(f"the picture could not be written: {disk_words(cause)}") from error
            raise
        row = {"id": picture_id(job.id, number), "job": job.id, "number": number, "owner": job.owner, "file": name}
        row |= {"width": image.width, "height": image.height, "bytes": len(data), "sha256": sha256(data)}
        row |= {"format": FORMATS[path.suffix].lower(), "starred": 0, "saved": int(job.saved), "created": time.time()}
        row |= {"prompt": "" if request is None else request.prompt, "parameters": image.info.get(KEY) or ""}
        return row | {"seed": None if request is None else str(request.seed), "seconds": seconds, "deleted": None}

    def read(self, name: str) -> bytes | None:
        """The bytes of a file of this folder; None where it is missing or cannot be read."""
        path = self.path / name
        if not path.resolve().is_relative_to(self.path):
            return None
        try:
            return path.read_bytes()
        except OSError:
            return None

    def thumb_path(self, picture: str) -> Path:
        return self.thumbs / picture[:2] / f"{picture}.webp"


def picture_name(job: Job, number: int, ending: str = ".png") -> str:
    """The path of a picture within the folder: a function of its job, so that a second attempt finds it."""
    day = time.strftime("%Y-%m-%d", time.gmtime(job.created))
    return f"pictures/{day}/{job.id}-{number:04d}{ending}"


def picture_id(job: str, number: int) -> str:
    return f"{job}-{number}"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def disk_words(error: OSError) -> str:
    """What the system refused, without the name of a file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "the folder may not be written"
    return (error.strerror or "the disk failed").lower()
