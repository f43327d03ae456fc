"""The replicas of a cluster: lent to one run each, replaced where they die, more where runs wait and fewer where not.

Nothing here knows Ray: what a replica is, `start` decides.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ..events import Event
from ..request.request import Request
from .replica import Failure
from .settings import ClusterSettings
from .shared_files import SharedRequest

LOG = logging.getLogger("stable_diffusion.cluster")
LOOK = 0.25
"""Seconds from one look at the replicas to the next."""
MOST_STARTS = 3
"""Replicas in a row that die before they are ready, after which new ones are started more slowly."""
SLOW_START = 10.0
"""Seconds from one start to the next then."""


class ReplicaDied(Exception):
    """The process of a replica, or its machine, is gone; what it was at is lost."""


class ReplicaHandle(Protocol):
    """A replica elsewhere. What it raises, where it is gone, is ReplicaDied."""

    def is_ready(self) -> bool:
        """Whether it has started; never waits. ReplicaDied once it is known to be gone, whether it was ready or not."""
        ...

    def run(self, run_id: str, asked: Request | SharedRequest) -> Iterator[Event | Failure]:
        """As `Replica.run`."""
        ...

    def stop(self, run_id: str) -> None: ...

    def want_preview(self, run_id: str) -> None: ...

    def end(self) -> None:
        """Ends its process."""
        ...


@dataclass(eq=False)
class Member:
    """A replica of a pool."""

    number: int
    handle: ReplicaHandle
    ready: bool = False
    lent: bool = False
    model: str | None = None
    used: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class PoolState:
    """How a pool is doing: replicas that are ready, that start, that run something; runs that wait; deaths so far."""

    ready: int
    starting: int
    running: int
    waiting: int
    deaths: int


class ReplicaPool:
    """Replicas from `min_replicas` to `max_replicas`. A context manager: none is left when the block ends.

    start   makes a replica, which need not be ready when it returns
    """

    def __init__(self, start: Callable[[], ReplicaHandle], settings: ClusterSettings) -> None:
        self.settings, self._start = settings, start
        self._members: list[Member] = []
        self._waiting: dict[int, float] = {}
        self._numbers, self._deaths, self._failed_starts = itertools.count(), 0, 0
        self._started = float("-inf")
        self._change, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._watch, name="replicas", daemon=True)

    def __enter__(self) -> ReplicaPool:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every replica. Runs that wait for one end with ReplicaDied."""
        with self._change:
            self._closed = True
            members, self._members = self._members, []
            self._change.notify_all()
        for member in members:
            member.handle.end()
        if self._thread.is_alive():
            self._thread.join(10)

    def state(self) -> PoolState:
        with self._change:
            ready = sum(each.ready for each in self._members)
            running = sum(each.lent for each in self._members)
            return PoolState(ready, len(self._members) - ready, running, len(self._waiting), self._deaths)

    def members(self) -> tuple[Member, ...]:
        """The replicas as they are now."""
        with self._change:
            return tuple(self._members)

    # --- lending ------------------------------------------------------------------------------------------------------

    def take(self, ticket: int, model: str | None, timeout: float) -> Member | None:
        """A replica for one run; None where none is free within `timeout` seconds.

        ticket   of `queue`; who waits longest goes first
        model    what the run needs: a replica that has it loaded is preferred, else the one idle longest
        """
        end = time.monotonic() + timeout
        with self._change:
            while True:
                if self._closed:
                    raise ReplicaDied("the cluster was left")
                free = [each for each in self._members if each.ready and not each.lent]
                if free and next(iter(self._waiting)) == ticket:
                    chosen = min(free, key=lambda each: (each.model != model, each.used))
                    chosen.lent, chosen.model = True, model
                    del self._waiting[ticket]
                    self._change.notify_all()
                    return chosen
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self._change.wait(left)

    def queue(self) -> int:
        """A place in the line of those who wait for a replica."""
        with self._change:
            ticket = next(self._numbers)
            self._waiting[ticket] = time.monotonic()
            return ticket

    def leave(self, ticket: int) -> None:
        """Gives the place in the line up."""
        with self._change:
            self._waiting.pop(ticket, None)
            self._change.notify_all()

    def give(self, member: Member, *, dead: bool = False) -> None:
        """Gives a replica back after a run, or says that it is dead."""
        with self._change:
            member.lent, member.used = False, time.monotonic()
            if dead:
                self._remove(member)
            self._change.notify_all()
        if dead:
            member.handle.end()

    # --- how many -----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Finds the dead and the ready, and starts or ends one where that is due; called again and again."""
        for member in self.members():
            try:
                ready = member.handle.is_ready()
            except ReplicaDied as error:
                LOG.warning("replica %d died: %s", member.number, error)
                with self._change:
                    self._failed_starts += not member.ready
                    if not member.lent:  # else whoever runs on it hears of it
                        self._remove(member)
                continue
            if ready and not member.ready:
                with self._change:
                    member.ready, member.used, self._failed_starts = True, time.monotonic(), 0
                    self._change.notify_all()
        for _ in range(self._missing()):
            handle = self._start()
            with self._change:
                self._started = time.monotonic()
                self._members.append(Member(next(self._numbers), handle))
        idle = self._idle()
        if idle is not None:
            idle.handle.end()

    def _missing(self) -> int:
        """How many more there should be."""
        with self._change:
            now, have = time.monotonic(), len(self._members)
            if self._closed or (self._failed_starts >= MOST_STARTS and now - self._started < SLOW_START):
                return 0
            starting = sum(not each.ready for each in self._members)
            late = sum(now - since > self.settings.grow_seconds for since in self._waiting.values())
            wanted = min(have + max(0, late - starting), self.settings.max_replicas)
            return max(self.settings.min_replicas, wanted) - have

    def _idle(self) -> Member | None:
        """A replica that is not needed any more, taken out; None where there is none."""
        with self._change:
            if len(self._members) <= self.settings.min_replicas or self._waiting:
                return None
            limit = time.monotonic() - self.settings.idle_seconds
            idle = [each for each in self._members if each.ready and not each.lent and each.used < limit]
            if not idle:
                return None
            oldest = min(idle, key=lambda each: each.used)
            self._members.remove(oldest)
            return oldest

    def _remove(self, member: Member) -> None:
        if member in self._members:
            self._members.remove(member)
            self._deaths += 1

    def _watch(self) -> None:
        while not self._closed:
            try:
                self.look()
            except Exception:
                LOG.exception("the replicas cannot be looked after now")
            time.sleep(LOOK)
