"""Work that a new process does beside its imports: a thread maps torch's libraries, which waits for the linker and not
for Python, so that another core does it meanwhile.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GLOBAL, LIBRARY = "libtorch_global_deps.so", "libtorch_cpu.so"
"""Those that `import torch` loads: the first with its names for all, the second with nine tenths of the code."""


_begun = False


def begin() -> None:
    """Start the thread, on Linux, where torch has not been imported yet; nothing where it was started."""
    global _begun
    # As in the package's `__getattr__`, for torch reads it with its first tensor.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if sys.platform == "linux" and "torch" not in sys.modules and not _begun:
        _begun = True
        threading.Thread(target=_load_libraries, daemon=True).start()


def _load_libraries() -> None:
    """Whatever fails here is for `import torch` to say."""
    with suppress(Exception):
        found = importlib.util.find_spec("torch")
        if found is not None and found.origin is not None:
            folder = Path(found.origin).parent / "lib"
            ctypes.CDLL(str(folder / GLOBAL), mode=ctypes.RTLD_GLOBAL)
            ctypes.CDLL(str(folder / LIBRARY))


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for unreachable objects while modules are read, of which none becomes garbage."""
    enabled, new = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if new:
            gc.freeze()  # what a new process has imported is not looked through at every later search
        if enabled:
            gc.enable()
