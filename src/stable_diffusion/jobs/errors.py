"""What a queue refuses, each in a plain sentence that may be shown to whoever asked."""

from __future__ import annotations

from ..errors import InvalidRequest, StableDiffusionError


class JobError(StableDiffusionError):
    """Base class of the errors of this room."""


class QueueFull(JobError):
    """The queue, or the owner's share of it, is full; `retry_after` is when to ask again, in whole seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnknownJob(JobError, LookupError):
    """There is no job with this id, and there never was one."""


class PrunedJob(JobError, LookupError):
    """There was a job with this id; it ended long ago and was removed from the list."""


class JobFinished(JobError):
    """The job has ended, so that it can be neither cancelled nor moved."""


class DifferentBody(JobError, InvalidRequest):
    """The idempotency key was used before, for another request."""


class UnknownPicture(JobError, LookupError):
    """There is no picture with this id, or its file is missing."""


class FolderInUse(JobError):
    """Another server works on this folder or on this database."""
