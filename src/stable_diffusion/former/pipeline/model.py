"""The former place of `pipeline.models`."""

from __future__ import annotations

import importlib

__getattr__ = importlib.import_module("stable_diffusion.former").moved(__name__, "pipeline.models")
