"""A bulk run whose workers are threads here, and whose pictures are made by the replicas of a cluster."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..bulk.work import WorkOrder, workers_of
from ..jobs.lease import Leases
from ..jobs.worker import Worker
from .run import ClusterRunner


@dataclass(eq=False)
class ClusterTeam:
    """A thread for each order, each of which waits for a replica: the team of a `BulkRun`.

    A replica that dies costs no worker: its request is tried again by `ClusterRunner`.
    """

    orders: Sequence[WorkOrder]
    leases: Leases
    runner: ClusterRunner
    _running: list[tuple[Worker, threading.Thread]] = field(default_factory=list)

    def __enter__(self) -> ClusterTeam:
        for order in self.orders:
            workers, idle = workers_of(order, self.runner)
            for worker in workers:
                thread = threading.Thread(target=worker.run_all, args=(idle,), name=f"bulk {order.name}", daemon=True)
                self._running.append((worker, thread))
                thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker, _thread in self._running:
            worker.stop(0)
        for worker, thread in self._running:
            thread.join(60)
            worker.bench.database.close()

    def check(self) -> bool:
        """Whether any still works."""
        return any(thread.is_alive() for _, thread in self._running)
