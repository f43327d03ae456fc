"""Random models are built once in a process and copied wherever a test wants one: building takes a second or two."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Writer = Callable[[Any, Path], Path]


def built_once(write: Writer) -> Writer:
    """The writer of the folder `place / kind.name`, by copies; random numbers drawn afterwards are the same, too."""
    kept: dict[str, tuple[Path, torch.Tensor]] = {}

    @functools.wraps(write)
    def copied(kind: Any, place: Path) -> Path:
        key = repr(kind)
        if key not in kept:
            home = Path(tempfile.mkdtemp())
            atexit.register(shutil.rmtree, home, ignore_errors=True)
            kept[key] = write(kind, home), torch.get_rng_state()
        folder, state = kept[key]
        torch.set_rng_state(state)
        return Path(shutil.copytree(folder, place / kind.name))

    return copied
