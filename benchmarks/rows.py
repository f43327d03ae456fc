"""What is measured: rows, each with the sides that are compared in it.

A module of rows has `rows(quick: bool) -> Iterator[Row]`, and stands in `MODULES`. It imports nothing heavy at its top,
and builds nothing before a side's `make` is called. `quick` asks for tiny sizes, which show that a row works, and say
nothing of speed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .measure import Call

MODULES = ("steps", "decoders", "pictures", "samplers", "embedded", "loading", "batching")


class Absent(Exception):
    """A side cannot take part here; the text says why, as "diffusers is not installed"."""


@dataclass(frozen=True)
class Side:
    """One way of doing the work: `make` prepares it, and gives what is timed. Raises Absent."""

    name: str
    make: Callable[[], Call]


@dataclass(frozen=True)
class Goal:
    """`ours` is to be at least `least` times as fast as `peer`; without a peer, at most `most` in the row's unit."""

    ours: str
    peer: str | None = None
    least: float = 1.0
    most: float | None = None


@dataclass(frozen=True)
class Row:
    """The same work done by several sides.

    flops   floating point operations of one call, where the share of the machine's rate means something
    warm    whether one call of each is made first and not counted
    """

    name: str
    title: str
    sides: tuple[Side, ...]
    flops: Callable[[], float] | None = None
    repeats: int = 3
    warm: bool = True
    goals: tuple[Goal, ...] = ()


def every_row(quick: bool) -> Iterator[Row]:
    """All rows of all modules."""
    for name in MODULES:
        yield from importlib.import_module(f"{__package__}.{name}").rows(quick)


def installed(module: str, name: str | None = None) -> None:
    """Raises Absent where a package cannot be imported."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a package that breaks on import is no peer either
        raise Absent(f"{name or module} is not installed ({type(error).__name__})") from error
