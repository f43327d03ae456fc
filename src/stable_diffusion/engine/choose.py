"""Which engine runs a model: the names of `--engine`, and what `auto` means here.

An engine is a module of this folder, imported when it is asked for, with two functions:

    unavailable() -> str | None          one plain sentence where this machine cannot use it, else None; cheap to ask
    make_engine(precision) -> Engine     `precision` is "stored" (the weights as they are), "int8" or
                                         "int8-weights"; InvalidRequest where the engine cannot compute so here

What is made is kept, so that a name and a precision mean one engine in a process.
"""

from __future__ import annotations

import functools
import importlib
import threading
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import InvalidRequest, unknown_choice
from .base import Engine

Precision: TypeAlias = Literal["stored", "int8", "int8-weights"]
"""How an engine computes: with the weights as they are stored in memory, with weights and activations in 8 bits, or
with weights alone in 8 bits."""

AUTO = "auto"
MODULES = {"torch": "torch", "openvino": "openvino"}
"""Name of an engine -> its module in this folder."""
_OTHERS = {("torch", "int8"): "int8", ("torch", "int8-weights"): "int8_weights"}
"""(engine, precision) -> the module that has it, where that is another one."""
LEAST = 50_000_000
"""Weights of a denoising network from which `auto` considers another engine: converting a smaller one takes longer
than the pictures that are made with it."""


@dataclass(frozen=True)
class Choice:
    """An engine, and one plain sentence on why it was chosen."""

    engine: Engine
    why: str


def engine_named(name: str, precision: Precision = "stored") -> Engine:
    """The engine of a name other than `auto`; InvalidRequest where there is none, or this machine cannot use it."""
    if name not in MODULES:
        raise unknown_choice("engine", str(name), [AUTO, *MODULES])
    reason = unavailable(name)
    if reason is not None:
        raise InvalidRequest(f"engine {name!r} cannot be used here: {reason}; choose 'torch' or 'auto'")
    with _LOCK:
        return _made(name, precision)


def choose(
    name: str = AUTO, *, device: str = "cpu", weights: int | None = None, precision: Precision = "stored"
) -> Choice:
    """The engine of a name; for `auto` the fastest here for a denoising network of so many weights on this device.

    weights  None asks for a network of full size (Stable Diffusion 1.x or larger)

    InvalidRequest where the name is unknown, or its engine cannot be used here.
    """
    if name != AUTO:
        return Choice(engine_named(name, precision), "asked for by name")
    best, why = automatic(device, weights, precision)
    return Choice(engine_named(best, precision), why)


def automatic(device: str, weights: int | None, precision: Precision) -> tuple[str, str]:
    """What `auto` means: (name of an engine, why)."""
    if device != "cpu":
        return "torch", f"other engines run on the CPU, and the model is on {device}"
    if weights is not None and weights < LEAST:
        return "torch", f"a network of {weights:,} weights is small: converting it for another engine does not pay"
    reason = unavailable("openvino")
    if reason is not None:
        return "torch", reason
    return "torch", "its own kernels are as fast here, and it needs no conversion"


def unavailable(name: str) -> str | None:
    """Why an engine cannot be used on this machine, in one sentence; None where it can."""
    try:
        module = importlib.import_module(f"{__package__}.{MODULES[name]}")
    except ModuleNotFoundError:
        return f"this version has no engine {name!r}"
    found: str | None = module.unavailable()
    return found


_LOCK = threading.RLock()


@functools.cache
def _made(name: str, precision: Precision) -> Engine:
    module = importlib.import_module(f"{__package__}.{_OTHERS.get((name, precision), MODULES[name])}")
    made: Engine = module.make_engine(precision)
    return made
