"""Where the socket of this user's server is, and what both ends of it must agree on. Needs the standard library alone.

The client sends a line of JSON, the order. The server answers with lines of JSON: first `{"accepted": true}` or
`{"refused": why}`, then what goes on; after a line with `bytes` the bytes of a PNG file follow.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

VARIABLE = "STABLE_DIFFUSION_SOCKET"
"""Variable of the environment that names another socket."""
MOST_LINE = 256 * 2**20
"""Bytes of a line: a request with its pictures in it."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY")
"""Variables that decide how sums are split up, and so the last bits of a picture."""


def socket_path() -> Path | None:
    """The socket of this user; None where the system has none, or no folder of the user's own."""
    if os.name != "posix":
        return None
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and is_private(Path(runtime)):
        return Path(runtime) / "stable-diffusion.sock"
    return Path(tempfile.gettempdir()) / f"stable-diffusion-{os.getuid()}" / "server.sock"


def is_private(folder: Path) -> bool:
    """Whether nobody but this user can change what is in a folder."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def is_own_socket(path: Path) -> bool:
    """Whether a path is a socket that this user, and nobody else, may use."""
    try:
        found = path.lstat()
    except OSError:
        return False
    mine = stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid()
    return mine and not found.st_mode & 0o077 and is_private(path.parent)


def surroundings() -> dict[str, Any]:
    """What decides the bytes of a picture beside the request: the version, and how many threads compute."""
    from ... import __version__

    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"version": __version__, "cores": count, **{name: os.environ.get(name) for name in THREADS}}
