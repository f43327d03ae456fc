"""Work that nobody waits for any more: who runs it says so, and work without steps of its own looks now and then.

    with stopping(lambda: clock() > end):
        events = generate(model, request)  # raises Stopped between two batches of a long prompt's windows

A run also ends at its next step when its stream is closed; this is for what happens before the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .errors import StableDiffusionError

_ASKED: ContextVar[Callable[[], bool] | None] = ContextVar("asked", default=None)


class Stopped(StableDiffusionError):
    """The work was asked to end before it was done."""


@contextmanager
def stopping(asked: Callable[[], bool]) -> Iterator[None]:
    """Within it, in this thread or task, work ends with Stopped soon after `asked()` is true."""
    token = _ASKED.set(asked)
    try:
        yield
    finally:
        _ASKED.reset(token)


def stop_if_asked() -> None:
    """Stopped where the work that calls this is to end."""
    asked = _ASKED.get()
    if asked is not None and asked():
        raise Stopped("the work was asked to end before it was done")
