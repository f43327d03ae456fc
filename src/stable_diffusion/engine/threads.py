"""How many threads torch's operators use in one thread of the program, while the others keep their number.

`torch.set_num_threads` sets two numbers: that of the thread that calls it, and the one for threads that use torch for
the first time later. The first of them decides last bits: products are cut into as many parts as there are threads, and
with some shapes the parts are summed in another order (`mm`, `addmm`, convolutions of 1x1).
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
_LOCK = threading.Lock()


def keep_threads(count: int) -> None:
    """From now on operators that this thread calls use so many threads; those of other threads as many as before."""
    with _LOCK:
        before = torch.get_num_threads()
        if before == count:
            return
        torch.set_num_threads(count)
        other = threading.Thread(target=torch.set_num_threads, args=(before,))
        other.start()  # it sets the number that later threads take
        other.join()


@contextmanager
def threads_of_torch(count: int | None) -> Iterator[None]:
    """Within it, operators that this thread calls use so many threads; None changes nothing."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    keep_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def with_threads(values: Generator[T, None, None], count: int) -> Iterator[T]:
    """The same values, each computed with so many threads; between them the caller's thread has its own number."""
    try:
        while True:
            with threads_of_torch(count):
                try:
                    value = next(values)
                except StopIteration:
                    return
            yield value
    finally:
        values.close()
