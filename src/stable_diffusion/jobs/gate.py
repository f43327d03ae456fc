"""What the workers over one runner agree on: how many run at once, and whose model is loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .worker import JobRunner

MOST_TOGETHER = 16
"""Workers over one runner at most."""
LOOK = 0.2
"""Seconds from one look to the next whether a job that waits for its model is to end."""


class Gate:
    """Lets jobs in, in turn: as many at once as the runner says that pay, and of one model alone.

    A runner without `together` runs one at a time. `loaded` is the model of the jobs that run, or of the last one.
    """

    def __init__(self, runner: JobRunner) -> None:
        self.runner = runner
        self.loaded: str | None = None
        self._running = self._claimed = self._waiting = 0
        self._seen = self.together
        self._line: list[object] = []
        self._changed = threading.Condition()

    @property
    def together(self) -> int:
        """Jobs that may run at once now; a runner that has to measure it says 1 until then."""
        found: int = getattr(self.runner, "together", 1)
        return min(max(found, 1), MOST_TOGETHER)

    @property
    def workers(self) -> int:
        """Workers that it needs, so that as many can run at once as may ever pay."""
        found: int = getattr(self.runner, "most_together", 1)
        return min(max(found, 1), MOST_TOGETHER)

    def take_place(self) -> bool:
        """Takes one of the places of jobs that pay, for a job that will be claimed; False where all are taken, or
        where a claimed job waits for the others to end. Every True needs a `give_place`."""
        with self._changed:
            may = not self._waiting and self._claimed < self.together
            self._claimed += may
            return may

    def give_place(self) -> None:
        """There was no job, or it is over."""
        with self._changed:
            self._claimed -= 1

    def grew(self) -> bool:
        """Whether more may run at once than when this was last asked."""
        before, self._seen = self._seen, self.together
        return self._seen > before

    def enter(self, model: str, is_over: Callable[[], bool]) -> bool:
        """Waits until a job of this model may run; another model's jobs end first, and its memory is given back.

        False, and nothing was entered, where `is_over` says that the job is to end. Every True needs a `leave`.
        """
        turn = object()
        with self._changed:
            self._line.append(turn)
            try:
                while self._line[0] is not turn or (self._running and self.loaded != model):
                    if is_over():
                        return False
                    self._waiting += 1
                    self._changed.wait(LOOK)
                    self._waiting -= 1
                if self.loaded not in (None, model):
                    self.runner.release()
                self.loaded = model
                self._running += 1
                return True
            finally:
                self._line.remove(turn)
                self._changed.notify_all()

    def leave(self) -> None:
        """A job that had entered is over."""
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def forget(self) -> None:
        """Gives back the memory of the models."""
        with self._changed:
            self.runner.release()
            self.loaded = None
