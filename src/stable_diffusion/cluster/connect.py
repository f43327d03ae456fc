"""Ray: the connection, and replicas as its actors. The only file that imports it."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, StableDiffusionError, brief
from ..events import Event
from ..request.request import Request
from .models import ModelStore
from .pool import ReplicaDied, ReplicaPool
from .replica import Failure, Replica
from .run import ClusterRunner
from .settings import LOCAL, ClusterSettings
from .shared_files import SharedFiles, SharedRequest

MISSING = 'a cluster needs one more package: pip install "stable-diffusion[cluster]"'
AT_ONCE = 4
"""Calls that an actor answers at once: a run, the end of the one before, and pings."""


def missing() -> str | None:
    """Why no cluster can be used here; None where it can."""
    return MISSING if importlib.util.find_spec("ray") is None else None


@contextmanager
def cluster(settings: ClusterSettings) -> Iterator[ReplicaPool]:
    """Replicas on the Ray of an address, while the block lasts; errors are those of `connected`."""
    with connected(settings), replicas(settings) as pool:
        yield pool


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[None]:
    """The connection to the Ray of an address.

    InvalidRequest where Ray is not installed, StableDiffusionError where it cannot be reached.
    """
    if (reason := missing()) is not None:
        raise InvalidRequest(reason)
    import ray

    _connect(settings)
    try:
        yield
    finally:
        ray.shutdown()


def replicas(settings: ClusterSettings) -> ReplicaPool:
    """A pool on the Ray that this program is connected to."""
    return ReplicaPool(lambda: ActorHandle(settings), settings)


def cluster_runner(pool: ReplicaPool) -> ClusterRunner:
    """A runner on a pool, with the store of its settings where they have one."""
    store = pool.settings.store
    return ClusterRunner(pool, None if store is None else SharedFiles(ModelStore(store)))


def _connect(settings: ClusterSettings) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"namespace": settings.namespace, "log_to_driver": False, "logging_level": "error"}
    if settings.address == LOCAL:
        cpus = settings.local_cpus or max(1, round(settings.cpus * settings.max_replicas))
        options |= {"num_cpus": cpus, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        options |= {"object_store_memory": settings.object_megabytes * 2**20}
        os.environ.setdefault("RAY_worker_niceness", "0")  # 15 would starve replicas on a machine that does more
        _let_workers_import()
    try:
        ray.init(address=settings.address, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise StableDiffusionError(f"Ray at {settings.address!r} cannot be reached: {brief(error, 200)}") from None


def _let_workers_import() -> None:
    """Processes of a Ray that is started here find this package where this one did."""
    here = str(Path(__file__).parents[2])
    paths = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    if here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *paths])


class ActorHandle:
    """A `Replica` in an actor, started at once."""

    def __init__(self, settings: ClusterSettings) -> None:
        import ray

        needs = {"num_cpus": settings.cpus, "num_gpus": settings.gpus}
        kind = ray.remote(Replica).options(
            **needs, max_concurrency=AT_ONCE, max_restarts=0, scheduling_strategy="SPREAD"
        )
        self.actor = kind.remote(settings)
        self._answer = self.actor.ping.remote()

    def is_ready(self) -> bool:
        """Whether it answered; asked again and again, so that its death is heard of."""
        import ray

        if not ray.wait([self._answer], timeout=0)[0]:
            return self._was_ready
        try:
            ray.get(self._answer)
        except ray.exceptions.RayError as error:
            raise ReplicaDied(brief(error, 200)) from None
        self._was_ready, self._answer = True, self.actor.ping.remote()
        return True

    _was_ready = False

    def run(self, run_id: str, asked: Request | SharedRequest) -> Iterator[Event | Failure]:
        """The events, as they are made."""
        import ray

        try:
            for each in self.actor.run.options(num_returns="streaming").remote(run_id, asked):
                event: Event | Failure = ray.get(each)
                yield event
        except ray.exceptions.RayTaskError as error:
            logging.getLogger("stable_diffusion.cluster").exception("a replica failed outside of a request")
            raise StableDiffusionError(f"the replica failed: {brief(error.cause, 200)}") from None
        except ray.exceptions.RayError as error:  # an actor, a machine, or what it held in memory is gone
            raise ReplicaDied(brief(error, 200)) from None

    def stop(self, run_id: str) -> None:
        self._say("stop", run_id)

    def want_preview(self, run_id: str) -> None:
        self._say("want_preview", run_id)

    def end(self) -> None:
        """Ends its process at once; it has nothing that would be lost."""
        import ray

        with suppress(Exception):  # it may be gone, and Ray with it
            ray.kill(self.actor)

    def _say(self, method: str, run_id: str) -> None:
        """Calls without an answer; to one that is dead, in vain."""
        import ray

        with suppress(ray.exceptions.RayError):
            getattr(self.actor, method).remote(run_id)
