"""The worker processes of a bulk run: started, watched, started once more where one dies."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import StableDiffusionError
from ..jobs.lease import Leases
from .work import WorkOrder

MOST_DEATHS = 20
"""Workers that may die in a run before it is given up."""


@dataclass(eq=False)
class Processes:
    """As many workers as there are orders. A context manager: none is left when the block ends."""

    orders: Sequence[WorkOrder]
    leases: Leases
    deaths: int = 0
    _running: dict[str, tuple[WorkOrder, subprocess.Popen[bytes]]] = field(default_factory=dict)

    def __enter__(self) -> Processes:
        for order in self.orders:
            self._start(order)
        return self

    def __exit__(self, *_: object) -> None:
        processes = [process for _, process in self._running.values()]
        for process in processes:
            process.kill()  # its job is found by the next start; nothing that it wrote is half a file
        for process in processes:
            process.wait()
            assert process.stdin is not None
            process.stdin.close()

    def check(self) -> bool:
        """Whether any still works. The jobs of one that died wait again, and another takes its place."""
        for name, (order, process) in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[name]
            assert process.stdin is not None
            process.stdin.close()
            if code == 0:
                continue
            self.deaths += 1
            self.leases.recover(worker=name)
            if self.deaths > MOST_DEATHS:
                raise StableDiffusionError(f"{self.deaths} workers died, the last with code {code}; see what they said")
            self._start(order)
        return bool(self._running)

    def _start(self, order: WorkOrder) -> None:
        fresh = replace(order, name=f"{order.name}-{secrets.token_hex(3)}")
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        if fresh.threads:
            environment["OMP_NUM_THREADS"] = str(fresh.threads)
        process = subprocess.Popen(
            fresh.command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        self._running[fresh.name] = fresh, process
