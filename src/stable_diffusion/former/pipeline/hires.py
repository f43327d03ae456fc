"""The former place of `pipeline.tasks.hires`."""

from __future__ import annotations

import importlib

__getattr__ = importlib.import_module("stable_diffusion.former").moved(
    __name__, "pipeline.tasks.hires", "request.settings"
)
