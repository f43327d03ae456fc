"""Hashes by which model files are known: sha256, the ten digits that A1111 prints, and its older eight digits.

sha256 reads a whole file, a second per gigabyte. That of a large file is remembered in the user's cache folder, until
the file is another one by its place, size, inode or times; and it can be computed in the background, in the time that
the networks leave.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from ...atomic import whole_file
from ...user_cache import cache_folder

SHORT = 10
"""Digits of sha256 in the `Model hash` of PNG text."""
LARGE = 64 * 2**20
"""Bytes from which the hash of a file is remembered."""
CHUNK = 8 * 2**20
SETTLED = 2.0
"""Seconds since a file was last changed, before which a further change might not show in its times."""
NICE = 10
"""How much background work stands back (Linux)."""

Identity = tuple[str, int, int, int, int]


def sha256(path: Path) -> str:
    """sha256 of the whole file, 64 hex digits; reads all of it (about a second per gigabyte)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(path: Path) -> Identity:
    """What tells a file from others, and from what it was before a change: path, size, inode, times."""
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


def known_sha256(path: Path) -> str:
    """sha256 of the file, remembered since it was last computed; what a background thread began is finished here."""
    found = identity(path)
    if found[1] < LARGE:
        return sha256(path)
    remembered = _read(found)
    if remembered is not None:
        return remembered
    with _LOCK:
        work = _UNDER_WAY.setdefault(found, _Hashing(path, found))
    digest = work.finished()
    with _LOCK:
        _UNDER_WAY.pop(found, None)
    return digest


def hash_in_background(path: Path) -> None:
    """Begin to compute `known_sha256` of a large file, where the system lets a thread stand back for others (Linux)."""
    try:
        found = identity(path)
    except OSError:
        return
    if sys.platform != "linux" or found[1] < LARGE or _read(found) is not None:
        return
    with _LOCK:
        if found in _UNDER_WAY:
            return
        work = _UNDER_WAY[found] = _Hashing(path, found)
    threading.Thread(target=work.in_background, name="sha256", daemon=True).start()


class _Hashing:
    """The hash of one file, piece by piece, by whoever has time: a thread in the background, and who waits for it."""

    def __init__(self, path: Path, found: Identity) -> None:
        self._path, self._identity = path, found
        self._digest, self._place = hashlib.sha256(), 0
        self._lock, self._hurried = threading.Lock(), False

    def in_background(self) -> None:
        with suppress(OSError):
            stand_back()
            while not self._hurried and self._piece():
                pass

    def finished(self) -> str:
        self._hurried = True
        while self._piece():
            pass
        found = self._digest.hexdigest()
        if identity(self._path) != self._identity:  # changed meanwhile: of which state this is cannot be said
            return sha256(self._path)
        _remember(self._identity, found)
        return found

    def _piece(self) -> bool:
        """Hash a piece; whether there was one. The end is remembered."""
        with self._lock, self._path.open("rb") as file:
            file.seek(self._place)
            data = file.read(CHUNK)
            self._digest.update(data)
            self._place += len(data)
        return bool(data)


def stand_back() -> None:
    """Let this thread have what time the others leave, where the system can do that for one thread."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def _place_of(found: Identity) -> Path:
    return (
        cache_folder() / "hashes" / f"{hashlib.sha256(found[0].encode(errors='surrogatepass')).hexdigest()[:32]}.json"
    )


def _read(found: Identity) -> str | None:
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        written = json.loads(_place_of(found).read_text(encoding="utf-8"))
        digest = written["sha256"]
        if tuple(written["file"]) == found and isinstance(digest, str) and len(digest) == 64:
            return digest
    return None


def _remember(found: Identity, digest: str) -> None:
    if time.time() - max(found[3:]) / 1e9 < SETTLED:
        return
    with suppress(OSError), whole_file(_place_of(found)) as file:
        file.write(json.dumps({"file": found, "sha256": digest}).encode())


_UNDER_WAY: dict[Identity, _Hashing] = {}
_LOCK = threading.Lock()


def legacy_hash(path: Path) -> str:
    """First 8 hex digits of the sha256 of 64 KiB at offset 1 MiB: the model hash of A1111 before December 2022."""
    with path.open("rb") as file:
        file.seek(2**20)
        return hashlib.sha256(file.read(2**16)).hexdigest()[:8]


def adapter_hash(path: Path) -> str:
    """sha256 of a .safetensors file without its header, which trainers and A1111 use for adapters since editing the
    metadata leaves it as it is; of the whole file for other formats."""
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        is_safetensors = start[8:9] == b"{" and length < path.stat().st_size
        file.seek(8 + length if is_safetensors else 0)
        return hashlib.file_digest(file, "sha256").hexdigest()
