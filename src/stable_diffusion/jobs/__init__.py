"""A durable queue of requests, the workers that run them, and the pictures that they make; it knows nothing of HTTP.

    from stable_diffusion.jobs import JobService

    with JobService("data") as service:
        job = service.submit(Request("a red cat"))
        job = service.wait(job.id)
        picture = service.pictures_of(job.id)[0]
        data = service.gallery.read(picture.id)

Everything that must outlast a crash is in a database (SQLite in the folder, or PostgreSQL) and in files, which are
written whole before their row. Progress and previews are in memory only.
"""

from __future__ import annotations

from .errors import (
    DifferentBody,
    FolderInUse,
    JobError,
    JobFinished,
    PrunedJob,
    QueueFull,
    UnknownJob,
    UnknownPicture,
)
from .records import FINISHED, Job, Limits, Picture, QueueState
from .service import JobService
from .stream import JobEvent, Subscription

__all__ = [
    "FINISHED",
    "DifferentBody",
    "FolderInUse",
    "Job",
    "JobError",
    "JobEvent",
    "JobFinished",
    "JobService",
    "Limits",
    "Picture",
    "PrunedJob",
    "QueueFull",
    "QueueState",
    "Subscription",
    "UnknownJob",
    "UnknownPicture",
]
