"""What is made from files, kept in memory until a file changes or the room is needed."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..weights.containers.open import as_paths

T = TypeVar("T")

LIMITS: Mapping[str, int] = {"built-in": 3, "model": 1, "refiner": 1, "control": 4, "hash": 64, "weights": 64}
"""Kind of thing -> how many are kept; of kinds with an owner, for each owner."""


OTHER_PARTS = ("vae", "text_encoders", "preview_vae")
"""Arguments of `load` that name files."""


def hashable(name: str, value: Any) -> Any:
    """An argument of `load` as the key of a cache needs it."""
    if name == "text_encoders":
        return tuple(map(str, as_paths(value)))
    if name in OTHER_PARTS and value:
        return str(value)
    return tuple(value) if isinstance(value, list) else value


@dataclass(eq=False)
class _Entry:
    """A value that is made by the first thread that asks; others wait for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    values: list[Any] = field(default_factory=list)


class FileCache:
    """`kept(kind, path, make)` is what `make()` gave when it was last asked for the same file, unchanged since.

    May be used by several threads: one of them makes a value, the others wait for it and nobody for another value. The
    values used least recently are dropped first; an error is not kept.
    """

    def __init__(self, limits: Mapping[str, int] = LIMITS) -> None:
        self._limits = dict(limits)
        self._shelves: dict[tuple[str, int], OrderedDict[tuple[Hashable, ...], _Entry]] = {}
        self._lock = threading.Lock()

    def kept(self, kind: str, path: Path, make: Callable[[], T], *more: Hashable, owner: object = None) -> T:
        """The value of a file or folder; `more` tells values of one file apart.

        owner  where it is not None, a value belongs to this object alone, and is dropped with it
        """
        stat = path.stat()
        key = (path.resolve(), stat.st_mtime_ns, stat.st_size, *more)
        entry = self._entry(kind, key, owner)
        with entry.lock:
            if not entry.values:
                try:
                    entry.values.append(make())
                except BaseException:
                    self._drop(kind, key, owner)
                    raise
            found: T = entry.values[0]
        return found

    def clear(self, keep: Collection[str] = ()) -> None:
        """Forget everything but the kinds to `keep`."""
        with self._lock:
            for name in [name for name in self._shelves if name[0] not in keep]:
                self._shelves.pop(name, None)  # with a model its own shelves may go by themselves

    def _entry(self, kind: str, key: tuple[Hashable, ...], owner: object) -> _Entry:
        name = (kind, id(owner))
        with self._lock:
            if name not in self._shelves:
                self._shelves[name] = OrderedDict()
                if owner is not None:
                    weakref.finalize(owner, self._shelves.pop, name, None).atexit = False
            shelf = self._shelves[name]
            entry = shelf.setdefault(key, _Entry())
            shelf.move_to_end(key)
            while len(shelf) > self._limits[kind]:
                shelf.popitem(last=False)
            return entry

    def _drop(self, kind: str, key: tuple[Hashable, ...], owner: object) -> None:
        with self._lock:
            self._shelves.get((kind, id(owner)), OrderedDict()).pop(key, None)
