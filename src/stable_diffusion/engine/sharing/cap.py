"""How many rows of a call pay, measured: where each row costs hardly less, a larger call only lets others wait."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

LARGEST = 32
"""Rows at most where each added row still pays."""
GAIN = 0.9
"""Twice the rows pay where a row then takes at most this share of the time."""
SHORT = 0.5
"""Seconds of a call under which it is measured three times, and the least time counts."""


def measured_cap(call: Callable[[int], object], first: int = 1, *, largest: int = LARGEST) -> int:
    """The rows of a call up to which t(n) / n falls by a tenth or more when n doubles.

    call   runs the network on so many rows, to the end
    first  rows to start at: those of one run's call
    """
    call(first)  # memory and kernels of the first call are not the network's time
    rows, a_row = first, _seconds(call, first) / first
    while 2 * rows <= largest:
        doubled = _seconds(call, 2 * rows) / (2 * rows)
        if doubled > GAIN * a_row:
            break
        rows, a_row = 2 * rows, doubled
    return rows


def _seconds(call: Callable[[int], object], rows: int) -> float:
    # of a processor its own time, which other programs disturb little
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    times: list[float] = []
    while len(times) < 3 and (not times or times[0] < SHORT):
        began = clock()
        call(rows)
        if clock is time.perf_counter:
            torch.cuda.synchronize()
        times.append(clock() - began)
    return min(times)
