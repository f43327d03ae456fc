"""Networks run by OpenVINO on processors (extra `cpu`); `engine.OpenVINOEngine` is the engine.

library.py    OpenVINO itself, without its telemetry
convert.py    a torch module and the shapes of its inputs -> a graph whose weights are inputs: no weight is copied
store.py      such graphs, and mapped files of weights, in the user's cache folder; the least recently used go first
mapped.py     torch's weights as views of such a file, so that memory holds those of OpenVINO alone
compiled.py   a graph with a run's weights in it, ready to be called
engine.py     which networks are compiled, kept and dropped
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from ...errors import InvalidRequest

if TYPE_CHECKING:
    from ..base import Engine


def unavailable() -> str | None:
    """Why OpenVINO cannot be used on this machine; None where it can."""
    if importlib.util.find_spec("openvino") is None:
        return 'OpenVINO is not installed (pip install "stable-diffusion[cpu]")'
    return None


def make_engine(precision: str = "stored") -> Engine:
    """The engine for weights as they are stored. InvalidRequest for another precision, or without OpenVINO."""
    reason = unavailable()
    if reason is not None:
        raise InvalidRequest(reason)
    if precision != "stored":
        raise InvalidRequest(f"engine 'openvino' has no precision {precision!r}; expected 'stored', or engine 'torch'")
    from .engine import OpenVINOEngine

    return OpenVINOEngine()
