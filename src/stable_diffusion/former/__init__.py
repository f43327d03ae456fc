"""Modules at the places where the last release had them: they work for one version more, and name today's place.

The folders here are further on in the search path of `pipeline` and `weights`, so that `from
stable_diffusion.pipeline.metadata import read_metadata` finds a module here that hands on what is asked for.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def moved(place: str, *homes: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module `place` whose names are in the modules `homes` of the package now."""

    def find(name: str) -> Any:
        for home in () if name.startswith("__") else homes:
            module = importlib.import_module(f"stable_diffusion.{home}")
            if hasattr(module, name):
                warnings.warn(
                    f"{place}.{name} is {module.__name__}.{name} now; the old place goes with the next version",
                    DeprecationWarning,
                    stacklevel=2,
                )
                return getattr(module, name)
        raise AttributeError(f"module {place!r} has no attribute {name!r}")

    return find
