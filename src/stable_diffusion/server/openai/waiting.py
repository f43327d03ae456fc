"""Waiting for a job as OpenAI's clients do: they go away after a while, try again, and then join the job that runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from ...jobs import Job
from ...request.request import Request
from ..errors import ApiError
from ..service import WATCH, Finished, Service

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest

RETRIES = "x-stainless-retry-count"
"""The header by which OpenAI's own clients say how often they have tried; they send no idempotency key."""
GRACE = 10.0
"""Seconds for which a job goes on whose client may try again: these wait 8 seconds at most."""


class Waiting:
    """Who waits for which job of one server."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._waiting: Counter[str] = Counter()
        self._leaving: set[asyncio.Task[None]] = set()

    async def submit(self, request: Request, owner: str, http: HttpRequest, priority: int = 0) -> Job:
        """A new job, or the unfinished one that a client means that tries again."""
        if tries_of(http):
            job = await self.service.call(self.service.queue.unfinished_like, request, owner=owner)
            if job is not None:
                return job
        key = http.headers.get("idempotency-key") or None
        return await self.service.submit(request, owner, idempotency=key, priority=priority)

    async def finished(self, job: Job, http: HttpRequest) -> Finished:
        """The job once it is done. It is cancelled where everybody who waited for it has gone away."""
        self._waiting[job.id] += 1
        task = asyncio.create_task(self.service.finished(job.id))
        gone = True
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=WATCH)
                if not task.done() and await http.is_disconnected():
                    raise ApiError(499, "the client went away", code="cancelled")
            gone = False
            return task.result()
        finally:
            task.cancel()
            self.leave(job.id, http, gone)

    def join(self, job: Job) -> None:
        """One more waits for a job; `leave` takes it back."""
        self._waiting[job.id] += 1

    def leave(self, job_id: str, http: HttpRequest, gone: bool) -> None:
        """One fewer waits for a job; where the client has gone away, it may come back for a while."""
        self._waiting[job_id] -= 1
        if self._waiting[job_id] <= 0:
            del self._waiting[job_id]
        if gone and job_id not in self._waiting:
            task = asyncio.create_task(self._left(job_id, GRACE if RETRIES in http.headers else 0.0))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _left(self, job_id: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if job_id not in self._waiting:
            await self.service.cancel_quietly(job_id)


def tries_of(http: HttpRequest) -> int:
    """How often the client has tried before."""
    text = http.headers.get(RETRIES, "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
