"""Models by their hash: a folder that all machines see, and on each machine copies of what it uses, checked.

    store/ab/abcdef...           a file, named by its sha256
    cache/abcdef.../name         the copy, under the name that pictures say

A file that is there is whole, for it was given its name last; a copy whose bytes are not those of its name is refused.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from ..atomic import whole_file
from ..errors import InvalidRequest, StableDiffusionError

BLOCK = 4 * 2**20
LOCKS, FOLDERS = ".locks", "folders"
UNUSED_SECONDS = 600.0
"""Time since the last use after which a folder of links may be removed."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a store: its sha256, its size in bytes, and its name."""

    digest: str
    size: int
    name: str


class ModelStore:
    """Files by their sha256, in a folder that several machines may write to at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[tuple[str, int, int], str] = {}
        self._lock = threading.Lock()

    def path(self, digest: str) -> Path:
        """Where the file of a hash is, or would be."""
        return self.folder / digest[:2] / digest

    def add(self, path: Path) -> StoredFile:
        """Puts a file into the store, where it is not there yet; it is read once as long as it does not change.

        InvalidRequest where the file cannot be read, StableDiffusionError where the store cannot be written.
        """
        try:
            facts = path.stat()
            key = str(path.resolve()), facts.st_size, facts.st_mtime_ns
            with self._lock:
                digest = self._known.get(key)
            if digest is None or not self.path(digest).is_file():
                with path.open("rb") as file:
                    digest = self._copied_in(file)
                with self._lock:
                    self._known[key] = digest
        except OSError as error:
            raise InvalidRequest(f"{path.name!r} cannot be read: {error.strerror or error}") from None
        return StoredFile(digest, facts.st_size, path.name)

    def _copied_in(self, source: BufferedReader) -> str:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        place = self.path(digest)
        if place.is_file():
            return digest
        source.seek(0)
        try:
            _copy(source, place, digest)
        except OSError as error:
            raise StableDiffusionError(f"the store of models cannot be written: {error.strerror or error}") from None
        return digest


class LocalModels:
    """This machine's copies of files of a store. Safe for several threads and processes.

    most   bytes beyond which the copies that were used longest ago are removed
    """

    def __init__(self, store: ModelStore, folder: Path, most: int) -> None:
        self.store, self.folder, self.most = store, folder, most

    def fetch(self, file: StoredFile, keep: Collection[str] = ()) -> Path:
        """The path of the copy, made and checked where it is missing.

        keep   hashes of other files that must not be removed to make room

        StableDiffusionError where the store has no such file, or one with other bytes.
        """
        place = self.folder / file.digest / file.name
        with self._locked(file.digest):
            if place.is_file() and place.stat().st_size == file.size:
                os.utime(place)
                return place
            self._make_room(file.size, {file.digest, *keep})
            try:
                with self.store.path(file.digest).open("rb") as source:
                    _copy(source, place, file.digest)
            except FileNotFoundError:
                raise StableDiffusionError(
                    f"the store of models has no {file.name!r} ({file.digest[:12]}...) any more"
                ) from None
            except OSError as error:
                raise StableDiffusionError(f"{file.name!r} cannot be copied here: {error.strerror or error}") from None
        return place

    def fetch_folder(self, name: str, files: Sequence[tuple[str, StoredFile]], keep: Collection[str] = ()) -> Path:
        """The path of a folder of this name with these files, by their paths in it; `keep` and errors are of `fetch`.

        Its files are hard links to the copies: links that lead out of a folder are refused where names are looked up.
        """
        said = hashlib.sha256(repr([(path, file.digest) for path, file in files]).encode()).hexdigest()
        place = self.folder / FOLDERS / said / name
        with self._locked(said):
            if not place.is_dir():
                made = place.with_name(f".{secrets.token_hex(6)}")
                made.mkdir(parents=True)
                for path, file in files:
                    (made / path).parent.mkdir(parents=True, exist_ok=True)
                    _link(self.fetch(file, keep), made / path)
                made.replace(place)
            os.utime(place.parent)
        return place

    def _make_room(self, size: int, keep: Collection[str]) -> None:
        found = (path for path in self.folder.glob("[0-9a-f]*/*") if not path.name.startswith("."))
        copies = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in found)
        held = sum(each[1] for each in copies)
        if held + size <= self.most:
            return
        for folder in (self.folder / FOLDERS).glob("*"):  # their files would hold the room that copies give back
            if time.time() - folder.stat().st_mtime > UNUSED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        for _, bytes_held, path in copies:
            if path.parent.name not in keep and held + size > self.most:
                shutil.rmtree(path.parent, ignore_errors=True)  # a process that has it open or mapped keeps it
                held -= bytes_held

    def _locked(self, digest: str) -> AbstractContextManager[Any]:
        """Only one process of this machine at a time is in the block."""
        from filelock import FileLock

        (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
        return FileLock(str(self.folder / LOCKS / digest))


def _link(copy: Path, place: Path) -> None:
    try:
        os.link(copy, place)
    except OSError:  # a file system without them
        shutil.copyfile(copy, place)


def _copy(source: BinaryIO, place: Path, digest: str) -> None:
    """Writes a file whole or not at all. StableDiffusionError where its sha256 is not `digest`."""
    found = hashlib.sha256()
    with whole_file(place) as file:
        while block := source.read(BLOCK):
            found.update(block)
            file.write(block)
        if found.hexdigest() != digest:
            raise StableDiffusionError(
                f"the file {digest[:12]}... of the store of models is damaged: its bytes have another sha256; remove it"
            )
        file.flush()
        now = time.time()  # of this machine, whatever clock a shared disk has
        os.utime(file.name, (now, now))
