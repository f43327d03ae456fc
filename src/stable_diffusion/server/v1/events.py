"""Server-sent events: of one job to its end, or of everything; they resume where a connection was lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from ...jobs import FINISHED, JobEvent, Subscription
from ..errors import ApiError
from ..service import Service, ServiceIs
from .jobs import JobId
from .shapes import event_json

router = APIRouter(prefix="/v1", tags=["events"])
KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that no proxy takes the line for dead."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
LastEventId = Annotated[str | None, Header(max_length=40)]
Previews = Annotated[bool, Query(description="Whether pictures that form are wanted.")]
RESPONSES: dict[int | str, dict[str, object]] = {200: {"content": {"text/event-stream": {}}}}


@router.get("/jobs/{job_id}/events", response_class=StreamingResponse, responses=RESPONSES, summary="Events of a job")
async def job_events(
    service: ServiceIs, http: Request, job_id: JobId, previews: Previews = True, last_event_id: LastEventId = None
) -> StreamingResponse:
    """All since its submission as far as they are kept, or those after Last-Event-ID; ends with the job."""
    job = await service.call(service.queue.job, job_id)
    after = _number(last_event_id) or 0
    events = service.queue.subscribe(job_id, after=after, previews=previews)
    return stream(service, http, events, over=job.state in FINISHED)


@router.get("/events", response_class=StreamingResponse, responses=RESPONSES, summary="Events of everything")
async def all_events(
    service: ServiceIs, http: Request, previews: Previews = True, last_event_id: LastEventId = None
) -> StreamingResponse:
    """Jobs, queue and gallery, from now on, or from Last-Event-ID as far as they are kept."""
    return stream(service, http, service.queue.subscribe(None, after=_number(last_event_id), previews=previews))


def stream(service: Service, http: Request, events: Subscription, *, over: bool = False) -> StreamingResponse:
    """The answer that sends events; ApiError where too many streams are open."""
    if service.streams >= service.settings.limits.streams:
        events.close()
        raise ApiError(429, "too many event streams are open", headers={"Retry-After": "5"})
    return StreamingResponse(_lines(service, http, events, over), media_type="text/event-stream", headers=HEADERS)


async def _lines(service: Service, http: Request, events: Subscription, over: bool) -> AsyncIterator[bytes]:
    service.streams += 1
    try:
        yield b": open\nretry: 2000\n\n"
        while True:
            event = await events.next(0.05 if over else KEEP_ALIVE)
            if event is not None:
                yield line(service, event)
            elif over or events.is_over or service.closing:
                return
            else:
                yield b": still here\n\n"
    except asyncio.CancelledError:
        raise
    finally:
        service.streams -= 1
        events.close()


def line(service: Service, event: JobEvent) -> bytes:
    """An event as the browser's EventSource reads it."""
    data = json.dumps(event_json(service, event), ensure_ascii=True, allow_nan=False)
    return f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n".encode()


def _number(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return int(text)
