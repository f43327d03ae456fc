"""Jobs: submitted, followed, cancelled, moved, tried again; and the queue that they wait in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from ...jobs import Job
from ...jobs.records import STATES, State
from ..auth import OwnerIs
from ..errors import ApiError
from ..schema import Strict, given, job_settings
from ..service import Service, ServiceIs
from ..settings import ServerSettings
from .shapes import job_json, queue_json

AGAIN = ("failed", "cancelled", "lost")
JobId = Annotated[str, Field(min_length=1, max_length=64)]
Key = Annotated[str | None, Header(min_length=1, max_length=200)]


class Move(Strict):
    """Where a waiting job goes: one of the four."""

    before: JobId | None = None
    after: JobId | None = None
    first: bool = False
    last: bool = False


class Retry(Strict):
    """Which jobs are tried again."""

    jobs: Annotated[list[JobId], Field(max_length=1000)] | None = None


def router(settings: ServerSettings) -> APIRouter:
    """The routes of jobs and of the queue."""
    routes = APIRouter(prefix="/v1", tags=["jobs"])

    async def submit(
        service: ServiceIs, owner: OwnerIs, settings: BaseModel, idempotency_key: Key = None
    ) -> JSONResponse:
        """Settings of pictures; all but the prompt may be left out. The answer comes at once: the job waits in the
        queue. A repeated Idempotency-Key gives the first job again, and 409 where the settings differ."""
        data = given(settings)
        priority = data.pop("priority", 0)
        request = await service.request(data)
        job = await service.submit(request, owner, priority=priority, idempotency=idempotency_key)
        return await accepted(service, job)

    submit.__annotations__["settings"] = job_settings()  # made of the table when the server starts
    routes.add_api_route(
        "/jobs", submit, methods=["POST"], status_code=202, max_body_size=settings.limits.body, summary="Order pictures"
    )
    _add_job_routes(routes)
    _add_queue_routes(routes)
    return routes


async def accepted(service: Service, job: Job) -> JSONResponse:
    """202 for a job that waits, with its address."""
    position = await _position(service, job)
    address = f"/v1/jobs/{job.id}"
    answer = {
        "id": job.id,
        "state": job.state,
        "position": position,
        "url": address,
        "seed_text": str(job.body.get("seed")),
    }
    return JSONResponse(answer, 202, headers={"Location": address})


async def _position(service: Service, job: Job) -> int | None:
    if job.state != "queued":
        return None
    return max((await service.call(service.queue.place, job.id)).position - 1, 0)


async def whole_job(service: Service, job_id: str) -> dict[str, Any]:
    """A job with its pictures, progress and place."""
    job = await service.call(service.queue.job, job_id)
    pictures = await service.call(service.queue.pictures_of, job_id)
    progress = service.progress(job_id)
    return job_json(service, job, pictures, progress, await _position(service, job))


def _add_job_routes(routes: APIRouter) -> None:
    @routes.get("/jobs", summary="Jobs, the newest first")
    async def jobs(
        service: ServiceIs,
        state: Annotated[str, Query(max_length=80)] = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    ) -> dict[str, Any]:
        """`state` is one or several with commas between. Queued ones come in the order in which they will run."""
        states = named_states(state)
        if states == ["queued"]:
            found = (await service.call(service.queue.store.line))[:limit]
        else:
            found = await service.call(service.queue.jobs, states=states, limit=limit, before=before)
        line = {job.id: place for place, job in enumerate(await service.call(service.queue.store.line))}
        shown = []
        for job in found:
            pictures = await service.call(service.queue.pictures_of, job.id)
            shown.append(job_json(service, job, pictures, service.progress(job.id), line.get(job.id)))
        return {"jobs": shown, **queue_json(await service.call(service.queue.state), service)}

    @routes.get("/jobs/{job_id}", summary="A job")
    async def job(service: ServiceIs, job_id: JobId) -> dict[str, Any]:
        """404 for a job that never was, 410 for one that ended long ago and was forgotten."""
        return await whole_job(service, job_id)

    async def cancel(service: ServiceIs, job_id: JobId) -> dict[str, Any]:
        """A waiting job is cancelled at once, a running one at its next step; 409 where it has ended."""
        before = await service.call(service.queue.job, job_id)
        if before.is_finished:
            raise ApiError(409, f"the job {job_id!r} is {before.state} already")
        await service.call(service.queue.cancel, job_id)
        return await whole_job(service, job_id)

    routes.add_api_route("/jobs/{job_id}/cancel", cancel, methods=["POST"], summary="Cancel a job")
    routes.add_api_route(
        "/jobs/{job_id}", cancel, methods=["DELETE"], summary="Cancel a job", operation_id="delete_job"
    )

    @routes.post("/jobs/{job_id}/skip", summary="End the picture being made")
    async def skip(service: ServiceIs, job_id: JobId) -> dict[str, Any]:
        """The job goes on with the next of its pictures; 409 where it does not run."""
        if not await service.call(service.queue.skip, job_id):
            raise ApiError(409, f"the job {job_id!r} does not run")
        return await whole_job(service, job_id)

    @routes.post("/jobs/{job_id}/retry", status_code=202, summary="Try a job again")
    async def retry(service: ServiceIs, job_id: JobId) -> dict[str, Any]:
        """One that failed, was cancelled or lost waits again; 409 for others."""
        before = await service.call(service.queue.job, job_id)
        if before.state not in AGAIN:
            raise ApiError(409, f"the job {job_id!r} is {before.state}; only {', '.join(AGAIN)} ones are tried again")
        await service.call(service.queue.retry, job_id)
        return await whole_job(service, job_id)


def named_states(text: str) -> list[State]:
    """States with commas between; ApiError for a word that is none."""
    found = [each.strip() for each in text.split(",") if each.strip()]
    wrong = next((each for each in found if each not in STATES), None)
    if wrong is not None:
        raise ApiError(422, f"state is {wrong[:40]!r}; expected some of {', '.join(STATES)}", param="state")
    return [known for known in STATES if known in found]


def moved(line: list[str], job_id: str, to: Move) -> list[str]:
    """The line with a job at another place; ApiError where it, or the one that it goes to, does not wait."""
    asked = [bool(to.before), bool(to.after), to.first, to.last]
    if sum(asked) != 1:
        raise ApiError(422, "expected one of before, after, first and last")
    if job_id not in line:
        raise ApiError(409, f"the job {job_id!r} does not wait")
    other = to.before or to.after
    rest = [each for each in line if each != job_id]
    if other is not None and other not in rest:
        raise ApiError(409, f"the job {other!r} does not wait")
    place = 0 if to.first else len(rest) if to.last else rest.index(str(other)) + bool(to.after)
    return [*rest[:place], job_id, *rest[place:]]


def _add_queue_routes(routes: APIRouter) -> None:
    @routes.post("/jobs/{job_id}/move", summary="Move a waiting job")
    async def move(service: ServiceIs, job_id: JobId, to: Move) -> dict[str, Any]:
        """Before or after another waiting job, or to the first or last place."""
        line = [job.id for job in await service.call(service.queue.store.line)]
        await service.call(service.queue.reorder, moved(line, job_id, to))
        return await whole_job(service, job_id)

    async def state(service: ServiceIs) -> dict[str, Any]:
        """Whether it is paused, and why; how many wait; which run."""
        return queue_json(await service.call(service.queue.state), service)

    routes.add_api_route("/queue", state, methods=["GET"], summary="The queue")

    @routes.post("/queue/pause", summary="Start no further job")
    async def pause(service: ServiceIs) -> dict[str, Any]:
        """The running one goes on to its end. It stays so over restarts."""
        await service.call(service.queue.pause)
        return await state(service)

    @routes.post("/queue/resume", summary="Start jobs again")
    async def resume(service: ServiceIs) -> dict[str, Any]:
        await service.call(service.queue.resume)
        return await state(service)

    @routes.post("/queue/clear", summary="Cancel every waiting job")
    async def clear(service: ServiceIs) -> dict[str, Any]:
        """The running one goes on."""
        gone = await service.call(service.queue.clear)
        return {**await state(service), "cancelled": list(gone)}

    @routes.post("/queue/retry", summary="Try every failed job again")
    async def retry_all(service: ServiceIs, which: Retry | None = None) -> dict[str, Any]:
        """Those named, or all that failed or were lost and are still in the list."""
        if which is None or which.jobs is None:
            done = await service.call(service.queue.retry_failed)
        else:
            done = [(await service.call(service.queue.retry, job_id)).id for job_id in which.jobs]
        return {**await state(service), "retried": done}
