"""Replicas without Ray or a model, which a test can kill."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from quick_runner import QuickRunner

from stable_diffusion.cluster.pool import ReplicaDied
from stable_diffusion.cluster.replica import Failure
from stable_diffusion.cluster.shared_files import SharedRequest
from stable_diffusion.events import Event
from stable_diffusion.request.request import Request


class QuickHandle:
    """A replica of this process. `die_after` events it is dead."""

    def __init__(self, runner: QuickRunner, die_after: int | None = None, *, ready: bool = True) -> None:
        self.runner, self.left, self.ready = runner, die_after, ready
        self.dead, self.ended = threading.Event(), False
        self.models: list[str | None] = []
        self.stopped: list[str] = []
        self.previews: set[str] = set()

    def is_ready(self) -> bool:
        if self.dead.is_set():
            raise ReplicaDied("it was killed")
        return self.ready

    def run(self, run_id: str, asked: Request | SharedRequest) -> Iterator[Event | Failure]:
        assert isinstance(asked, Request)
        self.models.append(asked.model)
        try:
            for event in self.runner.run(asked, wants_preview=lambda: run_id in self.previews):
                if self.left is not None:
                    self.left -= 1
                    if self.left < 0:
                        self.dead.set()
                if self.dead.is_set():
                    raise ReplicaDied("it was killed")
                yield event
        except (ValueError, RuntimeError) as error:
            yield Failure(error)

    def stop(self, run_id: str) -> None:
        self.stopped.append(run_id)

    def want_preview(self, run_id: str) -> None:
        self.previews.add(run_id)

    def end(self) -> None:
        self.ended = True
