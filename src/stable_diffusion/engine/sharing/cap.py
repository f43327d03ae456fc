"""How many rows of a call pay, measured: where each row costs hardly less, a larger call only lets others wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..threads import keep_threads
from .rows import CallRows

LARGEST = 32
"""Rows at most where each added row still pays, of all calls at once."""
GAIN = 0.9
"""Twice the rows pay where a row then takes at most this share of the time."""
SHORT = 0.5
"""Seconds of a call under which it is measured three times, and the least time counts. What takes longer is not
measured on one thread: such networks keep all of them busy."""


@dataclass(frozen=True)
class Pays:
    """What pays for calls of a network: so many rows in one at most, and whether several calls at once, of one thread
    each, cost the processor less than one of all threads (`apart`)."""

    rows: int
    apart: bool = False


def what_pays(call: Callable[[int], object], first: int, lanes: int) -> Pays:
    """What pays for a network.

    call   runs it on so many rows, to the end
    first  rows to start at: those of one run's call
    lanes  calls that one thread each could compute at once; 1 where that is not possible
    """
    call(first)  # memory and kernels of the first call are not the network's time
    rows, a_row = _doubled(lambda many: _seconds(call, many), first, LARGEST)
    if lanes == 1 or a_row * first >= SHORT:
        return Pays(rows)
    own, own_row = _doubled(lambda many: _seconds_apart(call, many, lanes), first, LARGEST // (2 * lanes))
    return Pays(own, apart=True) if own_row <= a_row else Pays(rows)


def _doubled(seconds: Callable[[int], float], first: int, largest: int) -> tuple[int, float]:
    """The rows of a call up to which t(n) / n falls by a tenth or more when n doubles, and what it then is."""
    rows, a_row = first, seconds(first) / first
    while 2 * rows <= largest:
        doubled = seconds(2 * rows) / (2 * rows)
        if doubled > GAIN * a_row:
            break
        rows, a_row = 2 * rows, doubled
    return rows, a_row


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


def _seconds_apart(call: Callable[[int], object], rows: int, lanes: int) -> float:
    """Of the processor's time what one call takes while others are computed as well, each in a thread with one of
    torch's threads: they share caches and memory."""
    times: list[list[float]] = []
    errors: list[Exception] = []
    begin = threading.Barrier(lanes)

    def lane() -> None:
        keep_threads(1)
        taken: list[float] = []
        try:
            call(rows)
            begin.wait()
            while len(taken) < 3 and (not taken or taken[0] < SHORT):
                began = time.thread_time()
                call(rows)
                taken.append(time.thread_time() - began)
        except Exception as error:
            begin.abort()
            errors.append(error)
        times.append(taken)

    threads = [threading.Thread(target=lane) for _ in range(lanes)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if errors:
        raise errors[0]
    return sum(map(min, times)) / lanes
