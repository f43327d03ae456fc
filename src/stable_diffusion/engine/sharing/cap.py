"""How many rows of a call pay, measured: where each row costs hardly less, a larger call only lets others wait."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from .rows import CallRows

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


def places_agree(call: Callable[[CallRows], Tensor], like: CallRows, rows: int) -> bool:
    """Whether a row gets the same bits in every place of a call of so many rows; for arguments shaped as `like`.

    Products are cut into blocks, and the rest at the end of a batch may be summed in another order. That is seen with
    small or odd sizes (6x6 latents, two or five rows). It depends on shapes, not on numbers: those are drawn here, the
    same each time, so that it is always found alike.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(name: str, tensor: Tensor) -> Tensor:
        if name in ("timestep", "guidance"):
            return torch.full_like(tensor[:1], 500.0 if name == "timestep" else 5.0)
        return torch.randn(tensor[:1].shape, generator=generator).to(tensor)

    row = CallRows({name: drawn(name, each) for name, each in like.tensors.items()})
    output = call(row.filled(rows))
    return all(torch.equal(each, output[0]) for each in output)


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
