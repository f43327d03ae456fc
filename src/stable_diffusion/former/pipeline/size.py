"""The former place of `request.settings`."""

from __future__ import annotations

import importlib

__getattr__ = importlib.import_module("stable_diffusion.former").moved(
    __name__, "request.settings", "pipeline.tasks.sdxl"
)
