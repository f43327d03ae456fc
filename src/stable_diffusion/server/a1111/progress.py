"""How far the running job is, for clients that ask again and again: A1111's progress, and that of a task by its id."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ...jobs import Job, JobError, JobEvent, JobService, Subscription
from .answers import timestamp
from .bodies import TaskProgress

LISTENS = 20.0
"""Seconds for which previews are still made after the last question."""
MOST_TASKS = 1000
IDLE = {
    "skipped": False,
    "interrupted": False,
    "stopping_generation": False,
    "job": "",
    "job_count": 0,
    "job_timestamp": "0",
    "job_no": 0,
    "sampling_step": 0,
    "sampling_steps": 0,
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The newest that is known of a running job."""

    job: str
    progress: JobEvent | None = None
    preview: JobEvent | None = None


@dataclass
class Tasks:
    """Ids of clients (`force_task_id`) and the jobs that they mean, and what was skipped or interrupted."""

    jobs: OrderedDict[tuple[str, str], str] = field(default_factory=OrderedDict)
    interrupted: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)

    def add(self, owner: str, task: str | None, job: str) -> None:
        """Remember a job under the id that its client chose for it."""
        if task:
            self.jobs[owner, task[:200]] = job
            self.jobs.move_to_end((owner, task[:200]))
            while len(self.jobs) > MOST_TASKS:
                self.jobs.popitem(last=False)

    def forget(self, job: str) -> None:
        """A job has ended."""
        self.interrupted.discard(job)
        self.skipped.discard(job)


class Watch:
    """Listens to the running job for as long as somebody asks; previews are made only then."""

    def __init__(self, queue: JobService) -> None:
        self.queue = queue
        self.tasks = Tasks()
        self._lock = threading.Lock()
        self._events: Subscription | None = None
        self._seen: Seen | None = None
        self._timer: threading.Timer | None = None
        self._asked = 0.0

    def seen(self, job_id: str, *, previews: bool) -> Seen:
        """The newest of a running job; the first question about it hears only of what comes after."""
        with self._lock:
            if self._events is None or self._seen is None or self._seen.job != job_id:
                self._drop()
                self._events = self.queue.subscribe(job_id, after=0, previews=previews)
                self._seen = Seen(job=job_id)
            self._events.previews = self._events.previews or previews
            progress, preview = self._seen.progress, self._seen.preview
            while (event := self._events.get(0)) is not None:
                progress = event if event.kind == "progress" else progress
                preview = event if event.kind == "preview" else preview
            self._seen = Seen(job=job_id, progress=progress, preview=preview)
            self._asked = time.monotonic()
            if self._timer is None:
                self._start_timer(LISTENS)
            return self._seen

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._events is not None:
            self._events.close()
        self._events = self._timer = None

    def _start_timer(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        """Nobody asks any more: no previews are made for nobody."""
        with self._lock:
            self._timer = None
            left = self._asked + LISTENS - time.monotonic()
            if left <= 0:
                self._drop()
            elif self._events is not None:
                self._start_timer(left)


def progress_json(watch: Watch, owner: str, *, with_image: bool) -> dict[str, Any]:
    """What GET /sdapi/v1/progress gives: 0.0 and no jobs when nothing runs and nothing waits.

    Of another owner's job it says how far it is, and shows nothing.
    """
    state = watch.queue.state()
    count = state.queued + len(state.running)
    found: dict[str, Any] = {"progress": 0.0, "eta_relative": 0.0, "state": {**IDLE, "job_count": count}}
    found |= {"current_image": None, "textinfo": None}
    job = None if not state.running else known_job(watch.queue, state.running[0])
    if job is None or job.is_finished:
        return found
    seen = watch.seen(job.id, previews=with_image and job.owner == owner)
    data = {} if seen.progress is None else seen.progress.data
    started = job.started or job.created
    found["progress"] = min(0.999, max(0.001, float(data.get("fraction", 0.0))))
    found["eta_relative"] = float(data.get("seconds_left") or 0.0)
    found["state"] |= {
        "job": f"job {job.id}",
        "job_timestamp": timestamp(started),
        "job_no": int(data.get("picture", 0)),
        "sampling_step": int(data.get("index", 0)),
        "sampling_steps": int(data.get("total", 0)),
        "interrupted": job.id in watch.tasks.interrupted,
        "skipped": job.id in watch.tasks.skipped,
    }
    if with_image and job.owner == owner and seen.preview is not None and seen.preview.preview is not None:
        found["current_image"] = png_text(seen.preview.preview)
    return found


def known_job(queue: JobService, job_id: str) -> Job | None:
    """The job, or None where it is gone."""
    try:
        return queue.job(job_id)
    except JobError:
        return None


def png_text(preview: bytes) -> str:
    """A preview as a PNG file in base64, which all clients read."""
    with Image.open(io.BytesIO(preview)) as image:
        file = io.BytesIO()
        image.convert("RGBA" if image.mode == "RGBA" else "RGB").save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode("ascii")


def task_progress(watch: Watch, owner: str, body: TaskProgress) -> dict[str, Any]:
    """What POST /internal/progress gives of a task: that of `force_task_id`, or a job's own id."""
    task = body.id_task or ""
    job_id = watch.tasks.jobs.get((owner, task[:200]), task)
    job = known_job(watch.queue, job_id) if job_id.isalnum() else None
    found: dict[str, Any] = {
        "active": False,
        "queued": False,
        "completed": False,
        "progress": None,
        "eta": None,
        "live_preview": None,
        "id_live_preview": body.id_live_preview,
        "textinfo": "Waiting...",
    }
    if job is None or job.owner != owner:
        return found
    if job.is_finished:
        return {**found, "completed": True, "textinfo": None if job.state == "done" else job.error or job.state}
    if job.state == "queued":
        place = watch.queue.place(job.id).position
        return {**found, "queued": True, "textinfo": f"In queue: {place}"}
    seen = watch.seen(job.id, previews=body.live_preview)
    data = {} if seen.progress is None else seen.progress.data
    found |= {"active": True, "textinfo": None, "progress": float(data.get("fraction", 0.0))}
    found["eta"] = data.get("seconds_left")
    preview = seen.preview
    if body.live_preview and preview is not None and preview.preview and preview.id != body.id_live_preview:
        picture = png_text(preview.preview)
        found |= {"live_preview": f"data:image/png;base64,{picture}", "id_live_preview": preview.id}
    return found


def pending_json(watch: Watch, owner: str) -> dict[str, Any]:
    """Tasks of this owner that wait or run."""
    tasks = [
        task
        for (whose, task), job_id in list(watch.tasks.jobs.items())
        if whose == owner and (job := known_job(watch.queue, job_id)) is not None and not job.is_finished
    ]
    return {"size": len(tasks), "tasks": tasks}
