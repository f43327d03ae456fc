"""Several jobs at once over one runner: as many as it says that pay, and of one model alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from quick_runner import QuickRunner

from stable_diffusion.events import Event
from stable_diffusion.jobs import JobService
from stable_diffusion.request.request import Request


class SharingRunner(QuickRunner):
    """Says after the first job that three at once pay, and notes what runs at once."""

    most_together = 3

    def __init__(self) -> None:
        super().__init__()
        self.together = 1
        self.most, self.models = 0, set[frozenset[str | None]]()
        self._now: list[str | None] = []
        self._lock = threading.Lock()

    def run(self, request: Request, *, wants_preview: Callable[[], bool] | None = None) -> Iterator[Event]:
        with self._lock:
            self._now.append(request.model)
            self.most = max(self.most, len(self._now))
            self.models.add(frozenset(self._now))
        try:
            for event in super().run(request, wants_preview=wants_preview):
                time.sleep(0.02)
                self.together = 3
                yield event
        finally:
            with self._lock:
                self._now.remove(request.model)


def test_as_many_run_at_once_as_pay_and_of_one_model(tmp_path: Path) -> None:
    runner = SharingRunner()
    with JobService(tmp_path / "data", runners=[runner]) as service:
        assert service.state().workers == 1 and len(service.workers) == 3
        jobs = [service.submit(Request(f"a cat {index}", model="xy"[index // 6], count=2)) for index in range(12)]
        assert [service.wait(job.id, 30).state for job in jobs] == ["done"] * 12
        assert all(len(service.pictures_of(job.id)) == 2 for job in jobs)
    assert runner.most == 3
    assert runner.models == {frozenset("x"), frozenset("y")}
    assert runner.released == 1


def test_one_of_those_at_once_is_cancelled_and_the_others_go_on(tmp_path: Path) -> None:
    runner = SharingRunner()
    runner.together = 3
    with JobService(tmp_path / "data", runners=[runner]) as service:
        waiting = service.submit(Request("wait"))
        others = [service.submit(Request("a cat", seed=seed)) for seed in range(4)]
        assert [service.wait(job.id, 20).state for job in others] == ["done"] * 4  # beside the one that waits
        service.cancel(waiting.id)
        runner.go.set()
        assert service.wait(waiting.id, 20).state == "cancelled"
        assert service.state().running == ()
