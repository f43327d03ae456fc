"""Large networks in the number type they are used in, kept on the disk and mapped from there.

Most files hold float16, and processors compute in bfloat16. Casting costs a second for each gigabyte, most of it for
fresh memory, in every process and every time. So what was cast is written to the user's cache folder once, in the
background or at once where somebody asks for it, and is a view of that file from then on: nothing is copied, several
processes share one copy, and the system (or `mapped.release`) can let go of it, since it is on the disk.

An entry is a .safetensors file under our own names. Its name holds what the file of the model is (path, size, inode,
times), the key table and the number type, so that another file or another table means another entry. Only finite
weights are kept, so that they are not looked at again. STABLE_DIFFUSION_CACHE_GB says how large all entries may be
(20), those used least recently go first; 0 keeps none.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ..atomic import make_room, whole_file
from ..errors import ModelFileError
from ..user_cache import cache_folder, cache_limit
from .arena import ALIGNED, Arena
from .containers.finite import not_finite
from .containers.hashes import identity, stand_back
from .containers.safetensors import DTYPE_NAMES, read_safetensors
from .keys import KeyTable, apply

LEAST = 100 * 2**20
"""Bytes of a network from which it is kept."""
FORM = 1
"""Of what is written; a change of the form is a higher number."""
UNDER_WAY = 60
"""Seconds after the last byte of a temporary file in which another process may still be writing it."""
KEPT = (torch.bfloat16, torch.float16)
"""Number types that are kept: float32 would take twice the file."""


def conversions() -> Path:
    """The folder of the entries."""
    return cache_folder() / "weights"


class Abandoned(Exception):
    """An entry is not written: the process ends, or its numbers are not fit to be kept."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Conversion:
    """A network's tensors in a file, and what they become.

    tensors        under the names of the file; `release` lets go of the memory of one
    shapes         our names -> shapes
    channels_last  whether kernels [O,I,h,w] of more than a pixel are written [O,h,w,I]
    origins        the files that they are in
    """

    tensors: Mapping[str, Tensor]
    release: Callable[[str], None]
    table: KeyTable
    shapes: Mapping[str, tuple[int, ...]]
    dtype: torch.dtype
    channels_last: bool
    origins: tuple[Path, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the network in its number type."""
        return sum(map(prod, self.shapes.values())) * self.dtype.itemsize

    @property
    def wanted(self) -> bool:
        """Whether the network is one of those that are kept."""
        return self.dtype in KEPT and LEAST <= self.nbytes <= cache_limit()

    @cached_property
    def path(self) -> Path:
        """The file of the entry. OSError where a file of the model is gone."""
        files = [identity(origin) for origin in self.origins]
        names = sorted(self.tensors)
        table = self.table.rules, sorted(self.table.aliases.items())
        said = repr((FORM, files, names, table, dict(self.shapes), str(self.dtype), self.channels_last))
        return conversions() / f"{hashlib.sha256(said.encode(errors='surrogatepass')).hexdigest()[:32]}.safetensors"

    def read(self) -> dict[str, Tensor] | None:
        """Our tensors, views of the entry; None where there is none that fits."""
        try:
            found, _ = read_safetensors(self.path)
            os.utime(self.path)  # when it was last used
        except (OSError, ModelFileError):
            return None
        stored = {name: self._stored_shape(shape) for name, shape in self.shapes.items()}
        if {name: found.info(name).shape for name in found} != stored:
            return None
        if any(found.info(name).dtype != self.dtype for name in found):
            return None
        state = {name: found[name] for name in self.shapes}
        return {
            name: tensor.permute(0, 3, 1, 2) if self._reordered(self.shapes[name]) else tensor
            for name, tensor in state.items()
        }

    def write(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Make the entry, one tensor at a time in memory, unless it is there or another process is about to write it.

        OSError where the disk refuses; Abandoned where the numbers are not finite, or `stopped()` says so.
        """
        folder, size = self.path.parent, self.nbytes
        if self.path.is_file() or _under_way(self.path):
            return
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < 2 * size:
            raise OSError("there is no room for what would be kept")
        make_room(folder, cache_limit() - size, now=time.time())
        arena = Arena(max(map(prod, self.shapes.values())) * self.dtype.itemsize + ALIGNED)
        with whole_file(self.path) as file:
            file.write(self._header())
            for rule in self.table.rules:
                if stopped():
                    raise Abandoned
                made = apply(rule.op, [self.tensors[name] for name in rule.theirs], len(rule.ours))
                for tensor in made:
                    file.write(self._bytes(tensor, arena))
                for name in rule.theirs:
                    self.release(name)

    def _bytes(self, tensor: Tensor, arena: Arena) -> memoryview:
        """A tensor as it is written."""
        if tensor.is_meta:
            raise Abandoned
        arena.clear()
        reordered = self._reordered(tuple(tensor.shape))
        cast = arena.cast(tensor, self.dtype, channels_last=reordered)
        if not_finite({"": cast}):
            raise Abandoned
        flat = (cast.permute(0, 2, 3, 1) if reordered else cast).contiguous().view(-1)
        return flat.view(torch.uint8).numpy().data

    def _header(self) -> bytes:
        entries, place = {}, 0
        for name in self.table.our_names():
            shape = self.shapes[name]
            end = place + prod(shape) * self.dtype.itemsize
            dtype = DTYPE_NAMES[self.dtype]
            entries[name] = {"dtype": dtype, "shape": self._stored_shape(shape), "data_offsets": [place, end]}
            place = end
        raw = json.dumps(entries, separators=(",", ":")).encode()
        raw += b" " * (-(len(raw) + 8) % ALIGNED)  # so that the first tensor begins at a cache line
        return len(raw).to_bytes(8, "little") + raw

    def _stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], shape[2], shape[3], shape[1]) if self._reordered(shape) else shape

    def _reordered(self, shape: tuple[int, ...]) -> bool:
        return self.channels_last and len(shape) == 4 and shape[2] * shape[3] > 1


def read_or_write(conversion: Conversion) -> dict[str, Tensor] | None:
    """The tensors of the entry, which is made first where it is missing; None where it cannot be."""
    found = conversion.read()
    if found is None:
        with suppress(OSError, Abandoned):
            conversion.write()
            found = conversion.read()
    return found


def write_later(conversion: Conversion) -> None:
    """Make the entry in the background, in the time that the networks leave; at the end of the process what is not
    whole is given up."""
    global _WRITER
    with _LOCK:
        if _WRITER is None:
            _WRITER = threading.Thread(target=_write_all, name="conversions", daemon=True)
            _WRITER.start()
            atexit.register(_end)
    _WAITING.put(conversion)


def wait_until_written() -> None:
    """Until everything that `write_later` was given is written, or given up."""
    _WAITING.join()


def _write_all() -> None:
    stand_back()
    while True:
        conversion = _WAITING.get()
        try:
            with suppress(OSError, Abandoned, ModelFileError):
                conversion.write(_STOPPED.is_set)
        finally:
            del conversion
            _WAITING.task_done()


def _end() -> None:
    """The writer gives up and takes its temporary file away."""
    _STOPPED.set()
    deadline = time.monotonic() + 5
    while _WAITING.unfinished_tasks and time.monotonic() < deadline:
        time.sleep(0.01)


def _under_way(path: Path) -> bool:
    """Whether somebody is writing the entry, by the age of temporary files for it."""
    for part in path.parent.glob(f".{path.name[:40]}.*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime < UNDER_WAY:
                return True
    return False


_WAITING: queue.Queue[Conversion] = queue.Queue()
_STOPPED = threading.Event()
_WRITER: threading.Thread | None = None
_LOCK = threading.Lock()
