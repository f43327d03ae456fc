"""One worker of a bulk run: a process of its own, which ends when the one that started it does.

python -m stable_diffusion.bulk.work '{"folder": ..., "name": ..., ...}'
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..jobs.database import Database
from ..jobs.files import DataFolder
from ..jobs.inputs import Inputs
from ..jobs.lease import Leases
from ..jobs.options import StoredSettings
from ..jobs.records import Job
from ..jobs.store import JobStore
from ..jobs.stream import EventStream
from ..jobs.worker import Bench, JobRunner, Worker, workers_over

STOPPED = "stopped"
"""Setting: why no worker goes on, as that the disk is full."""


@dataclass(frozen=True, kw_only=True)
class WorkOrder:
    """What a worker needs to know. `threads` 0 leaves the number to torch; `share` is how runs share network calls."""

    folder: str
    database: str
    name: str
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    share: str = "alone"

    def command(self) -> list[str]:
        """The command that does it."""
        return [sys.executable, "-m", "stable_diffusion.bulk.work", json.dumps(asdict(self))]


def picture_place(job: Job, number: int) -> str:
    """Pictures are named by the hash of what was asked: the same in every run, shard and order."""
    return f"pictures/{job.request_hash[:2]}/{job.request_hash[:16]}-{number:04d}.png"


def work(order: WorkOrder) -> None:
    """Runs jobs until none waits or runs."""
    import torch

    from ..runner import LocalRunner

    if order.threads:
        torch.set_num_threads(order.threads)
    (first, *others), idle = workers_of(order, LocalRunner(device=order.device, dtype=order.dtype, share=order.share))
    threads = [threading.Thread(target=each.run_all, args=(idle,)) for each in others]
    for thread in threads:
        thread.start()
    first.run_all(idle)
    for thread in threads:
        thread.join()


def workers_of(order: WorkOrder, runner: JobRunner) -> tuple[tuple[Worker, ...], Callable[[], bool]]:
    """The workers of an order, several where its runner gains by that, and what says that nothing is left to do."""
    folder, database = DataFolder(Path(order.folder)), Database(order.database)
    store, settings = JobStore(database), StoredSettings(database)
    bench = Bench(
        database=database,
        folder=folder,
        inputs=Inputs(database, folder.inputs),
        leases=Leases(store),
        stream=EventStream(),
        handlers={},
        naming=picture_place,
        is_paused=lambda: settings.get(STOPPED) is not None,
        disk_refused=lambda reason: settings.set(STOPPED, reason),
    )

    def idle() -> bool:
        counts = store.counts()
        return settings.get(STOPPED) is not None or not counts.get("queued", 0) + counts.get("running", 0)

    return workers_over(order.name, bench, [runner], poll=0.3), idle


def _end_with_parent() -> None:
    """Ends this process when standard input does, whose other end the parent holds."""
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """What `python -m` runs."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(WorkOrder(**json.loads(sys.argv[1])))
    os._exit(0)  # the thread that reads cannot be waited for


if __name__ == "__main__":
    main()
