"""The worker: one thread that owns a model and runs jobs, one after another, to pictures on the disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..errors import InvalidRequest, ModelFileError, StableDiffusionError
from ..events import Event, Images, Progress
from ..images import preview_bytes
from ..request.request import Request
from ..stop import Stopped, stopping
from .database import Database, database_words, sqlalchemy
from .files import DataFolder, DiskRefused, picture_name
from .gate import Gate
from .inputs import Inputs, tail
from .lease import Leases
from .records import Job, State
from .speed import Speeds
from .stream import EventStream

if TYPE_CHECKING:
    pass

LOG = logging.getLogger("stable_diffusion.jobs")
PREVIEW_SECONDS = 0.25
"""Least time from one preview to the next."""
FULL_DATABASE = ("full", "readonly", "disk I/O", "No space", "could not extend")
"""In what SQLite and PostgreSQL say when the disk takes no more; other errors may pass by themselves."""
MOST_REFUSED = 1000
"""Jobs that are remembered as those whose request could not be used."""
RECOVER_SECONDS = 15.0
"""From one look for jobs of dead workers to the next."""


class JobRunner(Protocol):
    """What paints: `LocalRunner`, or one elsewhere.

    One that gains by several jobs at once says in `together` how many it gains by now, and in `most_together` how many
    it may ever say; without them it is asked for one job at a time.
    """

    def run(self, request: Request, *, wants_preview: Callable[[], bool] | None = None) -> Iterator[Event]:
        """The events of a request; `wants_preview` is asked after each step whether its preview is wanted."""
        ...

    def release(self) -> None:
        """Gives back the memory of the models that are loaded."""
        ...


Handler: TypeAlias = Callable[[Mapping[str, Any], Inputs], Iterator[Event]]
"""Runs a job of another kind than "generate": from its body and the uploaded pictures to events."""


@dataclass(eq=False, kw_only=True)
class Bench:
    """What all workers of a program share."""

    database: Database
    folder: DataFolder
    inputs: Inputs
    leases: Leases
    stream: EventStream
    handlers: Mapping[str, Handler]
    speeds: Speeds = field(default_factory=Speeds)
    naming: Callable[[Job, int], str] = picture_name
    is_paused: Callable[[], bool] = lambda: False
    disk_refused: Callable[[str], None] = lambda reason: None
    refused: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_REFUSED))
    wake: threading.Condition = field(default_factory=threading.Condition)


@dataclass(eq=False)
class Current:
    """The job that a worker runs now, and what others ask of it."""

    job: Job
    cancel: threading.Event = field(default_factory=threading.Event)
    skip: threading.Event = field(default_factory=threading.Event)
    fraction: float = 0.0
    preview_at: float = 0.0
    last_rows: Sequence[Mapping[str, Any]] = ()


class Worker:
    """Runs jobs in a thread of its own until `stop`.

    name     by which the queue knows it, unlike that of any other worker
    gate     of all workers over this runner; None where it is the only one
    poll     seconds between looks into the database while nothing waits; submitting in this program wakes it at once
    """

    def __init__(
        self, name: str, bench: Bench, runner: JobRunner, *, gate: Gate | None = None, poll: float = 1.0
    ) -> None:
        self.name, self.bench, self.runner, self.poll = name, bench, runner, poll
        self.gate = Gate(runner) if gate is None else gate
        self.current: Current | None = None
        self._stop, self._recovered = threading.Event(), 0.0
        self._thread = threading.Thread(target=self._loop, name=f"worker {name}", daemon=True)
        self._beats = threading.Thread(target=self._heartbeat, name=f"heartbeat {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._beats.start()

    def stop(self, timeout: float | None = None) -> None:
        """Ends at the next step; the job that runs waits again, at the picture that it was at."""
        self._stop.set()
        with self.bench.wake:
            self.bench.wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def loaded(self) -> str | None:
        """The model of the last job of this runner."""
        return self.gate.loaded

    def run_all(self, idle: Callable[[], bool]) -> None:
        """Runs jobs in this thread until `idle` says that no more come; it is asked when nothing waits."""
        self._beats.start()
        while not self._stop.is_set():
            if self.run_next() is None and (idle() or self._stop.wait(self.poll)):
                break
        self._stop.set()

    def run_next(self) -> Job | None:
        """Claims the next job and runs it to its end in this thread; None where nothing waits."""
        bench = self.bench
        if time.monotonic() - self._recovered > RECOVER_SECONDS:
            self._recovered = time.monotonic()
            self._tell_recovered()
        with bench.wake:
            if bench.is_paused() or not self.gate.take_place():
                return None
            job = None
            try:
                job = bench.leases.claim(self.name, self.loaded)
            finally:
                if job is None:
                    self.gate.give_place()
            if job is None:
                return None
            self.current = Current(job)
        try:
            self._tell(job, "running", None, ())
            self._run(self.current)
        finally:
            self.current = None
            self.gate.give_place()
            self._wake_others()
        return job

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                if self.run_next() is not None:
                    continue
            except Exception:
                LOG.exception("the worker goes on after an error outside of a job")
            with self.bench.wake:
                if not self._stop.is_set():
                    self.bench.wake.wait(self.poll)

    def _heartbeat(self) -> None:
        """Keeps the lease while a model loads or a step takes long, and hears of cancellations by other programs."""
        leases, every = self.bench.leases, min(self.bench.leases.limits.lease / 4, 2.0)
        while not self._stop.wait(every):
            current = self.current
            if current is None:
                continue
            try:
                kept = leases.heartbeat(self.name, [current.job.id])
                if kept.get(current.job.id, True):  # asked to end, or no longer ours
                    current.cancel.set()
            except sqlalchemy().exc.SQLAlchemyError:
                LOG.warning("the database did not take a heartbeat")

    def _tell_recovered(self) -> None:
        again, lost = self.bench.leases.recover()
        for job_id in (*again, *lost):
            self.bench.stream.publish_state(self.bench.leases.store.job(job_id))

    def _run(self, current: Current) -> None:
        job, notes, started = current.job, dict[str, None](), time.monotonic()
        try:
            with stopping(lambda: self._is_over(current)):
                made = self._paint_in_turn(current, notes)
        except Stopped:  # before its first step
            made = None
        except DiskRefused as error:
            self.bench.disk_refused(str(error))
            self._end(current, "failed", str(error), notes)
            return
        except sqlalchemy().exc.OperationalError as error:  # the job's row cannot be written either; its lease runs out
            LOG.exception("the database did not take the job %s", job.id)
            words = database_words(error)
            if any(each in words for each in FULL_DATABASE):
                self.bench.disk_refused(f"the database cannot be written: {words}")
            return
        except StableDiffusionError as error:
            if isinstance(error, (InvalidRequest, ModelFileError)):
                self.bench.refused.append(job.id)
            self._end(current, "failed", str(error), notes)
            return
        except Exception as error:
            LOG.exception("the job %s failed", job.id)
            self._end(current, "failed", self._sentence(error), notes)
            return
        if made is not None:
            self._end(current, "done", None, notes)
            self.bench.speeds.learn(job, made, time.monotonic() - started)
        elif current.cancel.is_set():
            self._end(current, "cancelled", None, notes)
        else:
            self.bench.leases.give_back(job)
            self._tell(job, "queued", None, ())

    def _paint_in_turn(self, current: Current, notes: dict[str, None]) -> int | None:
        """The same as `_paint`, when the gate lets the job in."""
        job = current.job
        model = job.model if job.kind == "generate" else self.loaded or job.model  # others leave what is loaded
        if not self.gate.enter(model, lambda: self._is_over(current)):
            return None
        try:
            return self._paint(current, notes)
        finally:
            self.gate.leave()

    def _wake_others(self) -> None:
        """Lets idle workers look for jobs, where more than one may run."""
        if self.gate.workers > 1:
            with self.bench.wake:
                self.bench.wake.notify_all()

    def _paint(self, current: Current, notes: dict[str, None]) -> int | None:
        """Makes the pictures that are missing; returns how many, or None where it was ended before the last.

        Each is on the disk before its row is written; the row of the last one is written with the end of the job.
        """
        job, made = current.job, 0
        request = self.bench.inputs.request_of(job.body) if job.kind == "generate" else None
        first = self._finished_pictures(job)
        while first < job.count:
            done, skipped = 0, False
            began, events = time.monotonic(), self._events(current, request, first)
            try:
                while not (self._is_over(current) and first + done < job.count):
                    event = next(events, None)
                    if event is None:
                        break
                    if isinstance(event, Images):
                        notes.update(dict.fromkeys(event.notes))
                        self._keep(current, event, first, time.monotonic() - began)
                        done, began = event.first + len(event.images), time.monotonic()
                        made += len(event.images)
                        continue
                    self._progress(current, event, first)
                    if self.gate.grew():
                        self._wake_others()
                    if current.skip.is_set():
                        current.skip.clear()
                        skipped, done = True, event.picture + 1
                        break
            finally:
                close_stream(events)
            first += done
            if self._is_over(current) and first < job.count:
                return None
            if not skipped:
                break
        return made

    def _is_over(self, current: Current) -> bool:
        """Whether the job or this worker was asked to end."""
        return current.cancel.is_set() or self._stop.is_set()

    def _events(self, current: Current, request: Request | None, first: int) -> Iterator[Event]:
        """What runs the job; nothing where somebody asked for its end before it began."""
        job = current.job
        if self._is_over(current):
            return iter(())
        if request is not None:
            wanted = lambda: self._wants_preview(current)  # noqa: E731
            return self.runner.run(tail(request, first), wants_preview=wanted)
        handler = self.bench.handlers.get(job.kind)
        if handler is None:
            raise StableDiffusionError(f"there is nothing here that does jobs of the kind {job.kind!r}")
        return handler(job.body, self.bench.inputs)

    def _keep(self, current: Current, event: Images, first: int, seconds: float) -> None:
        job, folder, rows = current.job, self.bench.folder, []
        for index, image in enumerate(event.images):
            number = first + event.first + index
            request = event.requests[index] if index < len(event.requests) else None
            name = self.bench.naming(job, number)
            rows.append(folder.write(image, name, seconds / len(event.images), job, number, request))
        if rows and rows[-1]["number"] == job.count - 1:
            current.last_rows = rows
        elif self.bench.leases.keep(job, rows):
            self._tell_pictures(job, rows)
        else:
            current.cancel.set()  # another worker took this one for dead

    def _tell_pictures(self, job: Job, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            data = {name: row[name] for name in ("id", "number", "width", "height")}
            data["seed"] = None if row["seed"] is None else int(row["seed"])
            self.bench.stream.publish("picture", data, job=job.id, owner=job.owner)

    def _progress(self, current: Current, event: Progress, first: int) -> None:
        job = current.job
        picture = first + event.picture
        current.fraction = (picture + event.index / event.total) / job.count
        whole = self.bench.speeds.seconds(job)
        left = None if whole is None else round(whole * (1 - current.fraction), 1)
        data: dict[str, float | None] = {
            "picture": picture,
            "pictures": job.count,
            "index": event.index,
            "total": event.total,
        }
        data |= {"fraction": round(current.fraction, 4), "sigma": event.sigma, "seconds_left": left}
        self.bench.stream.publish("progress", data, job=job.id, owner=job.owner)
        if event.preview is not None:
            size = {"picture": picture, "width": event.preview.width, "height": event.preview.height}
            shown = preview_bytes(event.preview)
            self.bench.stream.publish("preview", size, job=job.id, owner=job.owner, preview=shown)

    def _wants_preview(self, current: Current) -> bool:
        now = time.monotonic()
        if now - current.preview_at < PREVIEW_SECONDS:
            return False
        if not self.bench.stream.wants_preview(current.job.id, current.job.owner):
            return False
        current.preview_at = now
        return True

    def _finished_pictures(self, job: Job) -> int:
        """The number of the first picture that an earlier attempt did not finish."""
        sa, pictures = sqlalchemy(), self.bench.database.pictures
        query = sa.select(sa.func.max(pictures.c.number)).where(pictures.c.job == job.id)
        with self.bench.database.read() as connection:
            last = connection.execute(query).scalar()
        return 0 if last is None else last + 1

    def _end(self, current: Current, state: State, error: str | None, notes: Mapping[str, None]) -> None:
        job, rows = current.job, current.last_rows
        if self.bench.leases.end(job, state, error=error, notes=list(notes), rows=rows):
            self._tell_pictures(job, rows)
            self._tell(job, state, error, tuple(notes))

    def _tell(self, job: Job, state: State, error: str | None, notes: tuple[str, ...]) -> None:
        data = {"state": state, "attempts": job.attempts, "error": error, "notes": list(notes)}
        self.bench.stream.publish(state, data, job=job.id, owner=job.owner)

    def _sentence(self, error: Exception) -> str:
        """What a user reads of an error that nobody foresaw; the whole of it is in the log."""
        if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
            self.gate.forget()
            return "there is not enough memory for this; ask for a smaller picture, or fewer at once"
        return f"the program failed ({type(error).__name__}); its log says more"


def workers_over(name: str, bench: Bench, runners: Sequence[JobRunner], *, poll: float = 1.0) -> tuple[Worker, ...]:
    """Workers for these runners: one each, or of a runner that gains by several jobs at once as many as may pay.

    Those beyond the first of a runner look less often by themselves; they are woken when there is work.
    """
    gates = [Gate(runner) for runner in runners]
    places = [(gate, number) for gate in gates for number in range(gate.workers)]
    return tuple(
        Worker(f"{name}-{index}", bench, gate.runner, gate=gate, poll=poll * min(1 + number, 2))
        for index, (gate, number) in enumerate(places)
    )


def close_stream(events: Iterator[Event]) -> None:
    """Lets a stream end at once, where it is one that can."""
    close = getattr(events, "close", None)
    if close is not None:
        close()
