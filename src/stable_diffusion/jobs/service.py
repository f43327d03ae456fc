"""The queue as a whole: what a server, a page or a command holds."""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..request.request import Request
from ..runner import LocalRunner
from .database import Database, sqlite_url
from .errors import JobError, UnknownJob
from .files import DataFolder
from .gallery import Gallery
from .inputs import Inputs
from .lease import Leases
from .options import StoredSettings
from .records import Job, Limits, Picture, Place, QueueState, State
from .speed import places
from .store import JobStore, Submission
from .stream import END_EVENTS, EventStream, Subscription
from .submission import asked_for, other_work
from .worker import Bench, Handler, JobRunner, workers_over

LOCAL = "local"
"""The owner where there is only one."""
PAUSED = "paused"
LOOK = 1.0
"""Seconds from one look into the database to the next while somebody waits for a job."""
PRUNE_EVERY = 100
"""Submissions from one cleaning to the next."""


class JobService:
    """A durable queue in a folder, its workers, and the gallery of what they made.

    folder     where the pictures, inputs and (without `database`) the SQLite file are; made where it is missing
    database   URL of a PostgreSQL database in the place of SQLite
    runners    a worker for each, several for one that shares; None is a `LocalRunner`; () for programs that only look
    limits     bounds of the queue
    handlers   kind -> what runs jobs of that kind, beside "generate"
    paused     start without running anything
    full_sync  let SQLite wait for the disk at each commit: survives power cuts too, and is about five times slower

    Use it in a `with` block, or call `start` and `close`. Its methods may be called by any thread (`wait` in a task
    of asyncio through `asyncio.to_thread`). FolderInUse where another service has the folder or the database.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        database: str | None = None,
        runners: Sequence[JobRunner] | None = None,
        limits: Limits | None = None,
        handlers: Mapping[str, Handler] | None = None,
        paused: bool = False,
        full_sync: bool = False,
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self.folder = DataFolder(Path(folder))
        self.folder.lock()
        try:
            url = sqlite_url(self.folder.path / "jobs.db") if database is None else database
            self.database = Database(url, full_sync=full_sync)
            self.database.lock()
        except BaseException:
            self.folder.unlock()
            raise
        self.stream = EventStream()
        self.store = JobStore(self.database, self.limits)
        self.inputs = Inputs(self.database, self.folder.inputs)
        self.gallery = Gallery(self.database, self.folder, self.limits, self._gallery_changed)
        self.settings = StoredSettings(self.database)
        self._paused = self._begin(paused)
        self._submitted = 0
        self._bench = Bench(
            database=self.database,
            folder=self.folder,
            inputs=self.inputs,
            leases=Leases(self.store),
            stream=self.stream,
            handlers={} if handlers is None else handlers,
            is_paused=lambda: self._paused["paused"],
            disk_refused=lambda reason: self.pause(reason),
        )
        who = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.workers = workers_over(who, self._bench, (LocalRunner(),) if runners is None else runners)

    # --- start and end ------------------------------------------------------------------------------------------------

    def start(self) -> JobService:
        """Starts the workers; jobs that ran when the program was killed come first."""
        self.folder.remove_parts()
        again, lost = self._bench.leases.recover(everything=True)
        for job_id in again:
            self._tell(self.store.job(job_id))
        for job_id in lost:
            self._tell(self.store.job(job_id))
        self.clean()
        for job in reversed(self.store.jobs(states=("done",), limit=50)):
            self._bench.speeds.learn(job, job.count, (job.finished or 0.0) - (job.started or 0.0))
        for worker in self.workers:
            worker.start()
        return self

    def close(self, timeout: float | None = 60.0) -> None:
        """Ends the workers at their next step and lets go of folder and database; running jobs wait for a new start."""
        for each in (0, timeout):  # all are asked before the first is waited for
            for worker in self.workers:
                worker.stop(each)
        self.database.close()
        self.folder.unlock()

    def __enter__(self) -> JobService:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def submit(
        self,
        request: Request | Mapping[str, Any],
        *,
        owner: str = LOCAL,
        priority: int = 0,
        idempotency: str | None = None,
        save: bool = True,
        kind: str = "generate",
        engine: str = "",
    ) -> Job:
        """A new job; or the one that was submitted with this idempotency key before.

        request      a Request, or JSON that `request_of` reads; for other kinds than "generate" any JSON object
        owner        who asks: owners take turns, and each sees its own jobs
        priority     higher goes first among the jobs of an owner
        idempotency  a key of the owner's choice: the same key and request is the same job
        save         whether the pictures belong in the gallery; others are removed after `Limits.unsaved` seconds

        Seeds that are left open are drawn here, so that a second attempt makes the same pictures. QueueFull (with
        `retry_after`) where too many jobs wait, DifferentBody for a used key, InvalidRequest for a bad request.
        """
        asked = self._asked(request, owner, kind, engine)
        asked = replace(asked, priority=int(priority), idempotency=idempotency, saved=bool(save))
        with self._bench.wake:  # no worker takes it before it is known to be queued
            job, is_new = self.store.submit(asked)
            if is_new:
                self._tell(job)
                self._bench.wake.notify_all()
        self._submitted += is_new
        if is_new and self._submitted % PRUNE_EVERY == 0:
            self.clean()
        return job

    def unfinished_like(
        self, request: Request | Mapping[str, Any], *, owner: str = LOCAL, kind: str = "generate", engine: str = ""
    ) -> Job | None:
        """A job of this owner that waits or runs for an equal request: what a client that tries again means."""
        return self.store.unfinished(owner, self._asked(request, owner, kind, engine).request_hash)

    def request_of(self, body: Mapping[str, Any], *, files: bool = False) -> Request:
        """A Request of JSON: pictures in base64 or as "sha256:..." of an uploaded one; other paths with `files`."""
        return self.inputs.request_of(body, files=files)

    def request_of_job(self, job_id: str) -> Request:
        """What a job was asked for, with its seeds and pictures."""
        return self.inputs.request_of(self.store.job(job_id).body)

    def job(self, job_id: str, *, owner: str | None = None) -> Job:
        """The job as it is now; UnknownJob (of another owner too), or PrunedJob for one that was removed."""
        job = self.store.job(job_id)
        if owner is not None and job.owner != owner:
            raise UnknownJob(f"there is no job {job_id[:80]!r}")
        return job

    def jobs(
        self,
        *,
        owner: str | None = None,
        states: Iterable[State] = (),
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        """Jobs, the newest first; `before` is the `seq` of the last one of the page before."""
        return self.store.jobs(owner=owner, states=states, limit=limit, before=before)

    def places(self) -> dict[str, Place]:
        """Where the running and the queued jobs stand, in the order in which they run."""
        return places(self.store.line(), self.workers, self._bench.speeds)

    def place(self, job_id: str) -> Place:
        """Where a job stands: 0 where it runs or has ended, 1 where it is the next."""
        job = self.store.job(job_id)
        done = Place(position=0, fraction=1.0 if job.state == "done" else 0.0, seconds_left=0.0)
        return done if job.is_finished else self.places().get(job_id, Place(position=0))

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """The job once it has ended, or as it is after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        with self.stream.subscribe(job_id) as events:
            while not (job := self.store.job(job_id)).is_finished:
                left = LOOK if end is None else end - time.monotonic()
                if left <= 0:
                    break
                until = time.monotonic() + min(left, LOOK)
                while (event := events.get(max(until - time.monotonic(), 0))) is not None:
                    if event.kind in END_EVENTS:
                        break
        return job

    def subscribe(
        self, job_id: str | None = None, *, owner: str | None = None, after: int | None = None, previews: bool = False
    ) -> Subscription:
        """Events of a job, of an owner's jobs, or of everything; see `EventStream.subscribe`.

        For a job that has ended and of which no events are kept, the end comes at once. UnknownJob or PrunedJob where
        there is no such job.
        """
        if job_id is not None:
            self.store.job(job_id)
        events = self.stream.subscribe(job_id, owner=owner, after=after, previews=previews)
        if job_id is not None and (job := self.store.job(job_id)).is_finished:
            events.end_with(self.stream.state_event(job))
        return events

    def cancel(self, job_id: str) -> Job:
        """Ends a queued job at once and a running one at its next step; JobFinished where it has ended."""
        job = self.store.cancel(job_id)
        current = self._current(job_id)
        if current is not None:
            current.cancel.set()
        elif job.state == "cancelled":
            self._tell(job)
        return job

    def skip(self, job_id: str) -> bool:
        """Leaves out the picture that a job is at and goes on with its next; False where the job does not run here."""
        current = self._current(job_id)
        if current is not None:
            current.skip.set()
        return current is not None

    def was_refused(self, job_id: str) -> bool:
        """Whether a job failed because what it asks for cannot be used; known of the last ones of this program."""
        return job_id in self._bench.refused

    def cancel_running(self, owner: str | None = None) -> list[str]:
        """Cancels what runs now, as the button "interrupt" does; returns the ids."""
        running = [each.current for each in self.workers]
        ids = [each.job.id for each in running if each is not None and owner in (None, each.job.owner)]
        for job_id in ids:
            with suppress(JobError):  # it may have ended by now
                self.cancel(job_id)
        return ids

    def clear(self, owner: str | None = None) -> list[str]:
        """Cancels every queued job (of an owner); what runs goes on."""
        ids = self.store.clear(owner)
        for job_id in ids:
            self._tell(self.store.job(job_id))
        return ids

    def retry(self, job_id: str) -> Job:
        """Queues a failed, lost or cancelled job once more, with the pictures that it has; others stay as they are."""
        for each in self.store.retry([job_id]):
            self._tell(self.store.job(each))
        self.wake()
        return self.store.job(job_id)

    def retry_failed(self, owner: str | None = None) -> list[str]:
        """The same for every failed and lost job (of an owner)."""
        failed = self.store.jobs(owner=owner, states=("failed", "lost"), limit=self.limits.kept)
        ids = self.store.retry([job.id for job in reversed(failed)])
        for each in ids:
            self._tell(self.store.job(each))
        self.wake()
        return ids

    def reorder(self, job_ids: Sequence[str]) -> None:
        """Lets these queued jobs run in this order, in the places that they have together."""
        self.store.reorder(job_ids)
        self.stream.publish("queue", {"order": True})

    def to_front(self, job_id: str) -> None:
        """Makes a queued job the next of its owner."""
        self.store.to_front(job_id)
        self.stream.publish("queue", {"order": True})

    def delete(self, job_id: str) -> None:
        """Removes a job from the list; its pictures stay in the gallery. A running one is cancelled first."""
        if not self.store.job(job_id).is_finished:
            with suppress(JobError):
                self.cancel(job_id)
            self.wait(job_id, 60)
        self.store.delete(job_id)

    # --- the queue ----------------------------------------------------------------------------------------------------

    def pause(self, reason: str | None = None) -> None:
        """Starts no further job; what runs goes on. Outlives the program, unless it is for a `reason` of the disk."""
        self._set_paused(True, reason)

    def resume(self) -> None:
        self._set_paused(False, None)
        self.wake()

    def state(self) -> QueueState:
        """How the queue is doing."""
        running = tuple(each.current.job.id for each in self.workers if each.current is not None)
        places = self.places().values()
        lefts = [place.seconds_left for place in places]
        return QueueState(
            paused=self._paused["paused"],
            reason=self._paused["reason"],
            queued=sum(1 for place in places if place.position > 0),
            running=running,
            model=next((worker.loaded for worker in self.workers if worker.loaded is not None), None),
            workers=len({worker.gate for worker in self.workers if worker.is_alive}),
            seconds_left=None if None in lefts else max((left for left in lefts if left is not None), default=0.0),
        )

    def clean(self) -> None:
        """Removes what is over: old ended jobs, uploads that nothing names, the old part of the bin."""
        self.store.prune()
        self.inputs.remove_unused()
        self.gallery.purge()

    def wake(self) -> None:
        """Lets idle workers look for jobs now."""
        with self._bench.wake:
            self._bench.wake.notify_all()

    # --- pictures -----------------------------------------------------------------------------------------------------

    def pictures_of(self, job_id: str) -> list[Picture]:
        """The pictures of a job by number, also while it runs."""
        return self.gallery.list(job=job_id, limit=1000)

    def upload(self, data: bytes) -> str:
        """Keeps the bytes of a picture to start from; "sha256:" and what is returned names it in requests."""
        return self.inputs.add(data)

    # --- within -------------------------------------------------------------------------------------------------------

    def _asked(self, request: Request | Mapping[str, Any], owner: str, kind: str, engine: str) -> Submission:
        if kind == "generate":
            return asked_for(self.inputs, request, owner, engine)
        return other_work(request, owner, kind, self._bench.handlers)

    def _begin(self, paused: bool) -> dict[str, Any]:
        """Whether the queue is paused at the start: a pause for a reason of the disk ends with the program."""
        found = self.settings.get(PAUSED, {"paused": False, "reason": None})
        return {"paused": paused or (found["paused"] and found["reason"] is None), "reason": None}

    def _set_paused(self, paused: bool, reason: str | None) -> None:
        self._paused = {"paused": paused, "reason": reason}
        with suppress(Exception):  # a full disk must not keep the queue from pausing
            self.settings.set(PAUSED, self._paused)
        self.stream.publish("queue", self._paused)

    def _current(self, job_id: str) -> Any:
        for worker in self.workers:
            current = worker.current
            if current is not None and current.job.id == job_id:
                return current
        return None

    def _tell(self, job: Job) -> None:
        self.stream.publish_state(job)

    def _gallery_changed(self, picture: str, owner: str, change: str) -> None:
        self.stream.publish("gallery", {"id": picture, "change": change}, owner=owner)
