"""What goes on, for whoever listens: events in memory, the last of them kept for those who come late.

Listeners are threads (`for event in subscription`) or tasks of asyncio (`async for event in subscription`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from .records import Job

EventKind: TypeAlias = Literal[
    "queued", "running", "progress", "preview", "picture", "done", "failed", "cancelled", "lost", "queue", "gallery"
]
END_EVENTS: tuple[EventKind, ...] = ("done", "failed", "cancelled", "lost")
KEPT_EVENTS, KEPT_JOBS = 200, 500
"""Events of one job that are kept, and jobs whose events are."""
WAITING = 1000
"""Events that wait for one listener; of a slower one the oldest are dropped."""


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """Something that happened. `id` grows, also over restarts of the program; `job` is "" where it is about no job.

    kind and data (plain JSON):
      queued, running, done, failed, cancelled, lost     {"state", "attempts", "error", "notes"}
      progress   {"picture", "pictures", "index", "total", "fraction", "sigma", "seconds_left"}
      preview    {"picture", "width", "height"}, and `preview` holds a JPEG, or WebP where it is transparent
      picture    {"id", "number", "seed", "width", "height"}
      queue      {"paused", "reason"} or {"order": true}      gallery    {"id", "change": "starred" ...}
    """

    id: int
    job: str
    owner: str
    kind: EventKind
    data: Mapping[str, Any]
    at: float
    preview: bytes | None = field(default=None, repr=False)


class Subscription:
    """Events for one listener, in order. Iterating ends with `close`, and for one job with the event that ends it.

    `get(timeout)` is for threads, `await next()` for tasks; both give None at the end or when the time is over.
    """

    def __init__(self, stream: EventStream, job: str | None, owner: str | None, previews: bool) -> None:
        self._stream, self.job, self.owner, self.previews = stream, job, owner, previews
        self._waiting: deque[JobEvent] = deque(maxlen=WAITING)
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signal: asyncio.Event | None = None
        self.closed = self._last_seen = False

    def get(self, timeout: float | None = None) -> JobEvent | None:
        """The next event; None where there is none within `timeout` seconds, or none will come."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self.is_over, timeout):
                return None
            return self._take()

    async def next(self, timeout: float | None = None) -> JobEvent | None:
        """The same in a task, which blocks no thread."""
        if self._signal is None:
            self._signal, self._loop = asyncio.Event(), asyncio.get_running_loop()
        while True:
            self._signal.clear()
            with self._changed:
                if self._waiting or self.is_over:
                    return self._take()
            try:
                await asyncio.wait_for(self._signal.wait(), timeout)
            except TimeoutError:
                return None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self.closed or self._last_seen

    def end_with(self, event: JobEvent) -> None:
        """Makes `event` the last one, unless the end of the job is known already."""
        if not self._last_seen:
            self._put(event)

    def close(self) -> None:
        """Ends it; whoever waits goes on at once."""
        self._stream._drop(self)
        with self._changed:
            self.closed = True
            self._wake()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> JobEvent:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> JobEvent:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    def wants(self, event: JobEvent) -> bool:
        if event.kind == "preview" and not self.previews:
            return False
        if self.job is not None:
            return event.job == self.job
        return self.owner is None or event.owner in (self.owner, "")

    def _put(self, event: JobEvent) -> None:
        with self._changed:
            if event.kind in ("progress", "preview"):  # the newest one is enough for who is late
                for old in [each for each in self._waiting if (each.kind, each.job) == (event.kind, event.job)]:
                    self._waiting.remove(old)
            self._waiting.append(event)
            self._last_seen = self.job is not None and event.kind in END_EVENTS
            self._wake()

    def _take(self) -> JobEvent | None:
        return self._waiting.popleft() if self._waiting and not self.closed else None

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._loop is not None and self._signal is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._signal.set)


class EventStream:
    """Hands events to the listeners, and keeps the last `KEPT_EVENTS` of each job (previews: the last one)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Subscription] = []
        self._kept: OrderedDict[str, deque[JobEvent]] = OrderedDict()
        self._last = int(time.time() * 1000)

    def publish(
        self, kind: EventKind, data: Mapping[str, Any], *, job: str = "", owner: str = "", preview: bytes | None = None
    ) -> JobEvent:
        """Makes an event known. May be called by any thread."""
        with self._lock:
            self._last = max(self._last + 1, int(time.time() * 1000))
            event = JobEvent(id=self._last, job=job, owner=owner, kind=kind, data=data, at=time.time(), preview=preview)
            kept = self._kept.setdefault(job, deque(maxlen=KEPT_EVENTS))
            self._kept.move_to_end(job)
            if kind == "preview":
                for old in [each for each in kept if each.kind == "preview"]:
                    kept.remove(old)
            kept.append(event)
            while len(self._kept) > KEPT_JOBS:
                self._kept.popitem(last=False)
            for listener in self._listeners:
                if listener.wants(event):
                    listener._put(event)
        return event

    def publish_state(self, job: Job) -> JobEvent:
        """Makes known in which state a job is."""
        return self.publish(job.state, _state_data(job), job=job.id, owner=job.owner)

    def state_event(self, job: Job) -> JobEvent:
        """An event of the state of a job, for one listener that comes after all others are gone."""
        with self._lock:
            known = [each for each in self._kept.get(job.id, ()) if each.kind == job.state]
            number = known[-1].id if known else self._last
        return JobEvent(
            id=number,
            job=job.id,
            owner=job.owner,
            kind=job.state,
            data=_state_data(job),
            at=job.finished or job.created,
        )

    def subscribe(
        self, job: str | None = None, *, owner: str | None = None, after: int | None = None, previews: bool = False
    ) -> Subscription:
        """A listener to one job, to the jobs of an owner, or to everything.

        after      the id of the last event that was seen: what came since, as far as it is kept, comes first; 0 is
                   all that is kept, None nothing
        previews   whether previews are wanted; they are made only while somebody wants them
        """
        made = Subscription(self, job, owner, previews)
        with self._lock:
            if after is not None:
                logs = [self._kept.get(job, ())] if job is not None else self._kept.values()
                for event in sorted((each for log in logs for each in log), key=lambda each: each.id):
                    if event.id > after and made.wants(event):
                        made._put(event)
            self._listeners.append(made)
        return made

    def wants_preview(self, job: str, owner: str) -> bool:
        """Whether anybody looks at the previews of this job."""
        with self._lock:
            return any(
                each.previews and (each.job == job or (each.job is None and each.owner in (None, owner)))
                for each in self._listeners
            )

    def _drop(self, listener: Subscription) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)


def _state_data(job: Job) -> dict[str, Any]:
    return {"state": job.state, "attempts": job.attempts, "error": job.error, "notes": list(job.notes)}
