"""Sides of a row, timed in turns (A B C A B C), so that other work on the machine weighs on all alike.

Beside wall seconds stand processor seconds, of child processes too: where wall seconds are more than processor seconds
over the number of cores, the machine was busy.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Call = Callable[[], object]


@dataclass(frozen=True)
class Amount:
    """What a call may answer, to be recorded in place of its seconds, such as bytes of memory."""

    value: float
    unit: str


@dataclass
class Measured:
    """The values of one side, in `unit`, and the processor seconds of its calls."""

    values: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    unit: str = "s"

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Largest minus least."""
        return max(self.values) - min(self.values)

    def add(self, call: Call) -> None:
        before, start = processor_seconds(), time.perf_counter()
        found = call()
        wall = time.perf_counter() - start
        self.cpu.append(processor_seconds() - before)
        if isinstance(found, Amount):
            self.unit = found.unit
        self.values.append(found.value if isinstance(found, Amount) else wall)


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def in_turns(calls: Mapping[str, Call], repeats: int, *, warm: bool = True) -> dict[str, Measured]:
    """Every side in turn, so many times; with `warm` there is one round before that is not counted."""
    found = {name: Measured() for name in calls}
    if warm:
        for call in calls.values():
            call()
    for _ in range(repeats):
        for name, call in calls.items():
            found[name].add(call)
    return found


def peak_memory() -> float:
    """The most memory that this process had, in bytes."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) * (1 if sys.platform == "darwin" else 1024)
