"""A picture that forms, as server-sent events: partial pictures, then the finished ones, each with what they took."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi.responses import StreamingResponse

from ...jobs import Job, JobEvent, Subscription
from ..errors import ApiError, as_api_error
from ..service import Service, failure
from ..v1.events import HEADERS, KEEP_ALIVE
from .answering import QUALITIES, error_of_openai, said_of, usage_of
from .asking import Asked
from .encoding import base64_of, in_format, partial_picture
from .waiting import Waiting

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest

ENDED_BADLY = ("failed", "cancelled", "lost")


class PictureStream:
    """The events of one job. `kind` is "image_generation" or "image_edit"."""

    def __init__(self, service: Service, asked: Asked, job: Job, kind: str) -> None:
        self.service, self.asked, self.job, self.kind = service, asked, job, kind
        self._sent: dict[int, int] = {}
        self._share: dict[int, float] = {}

    async def events(self, waiting: Waiting, http: HttpRequest, early: Subscription) -> AsyncIterator[bytes]:
        """Lines of the answer. `early` listens since before the job was there, so that previews are made at once."""
        waiting.join(self.job)
        self.service.streams += 1
        gone = True
        try:
            wanted = bool(self.asked.fields.partial_images)
            with early, self.service.queue.subscribe(self.job.id, after=0, previews=wanted) as found:
                yield b": open\n\n"
                while True:
                    event = await found.next(KEEP_ALIVE)
                    if event is not None:
                        async for line in self._lines(event):
                            yield line
                    if (found.is_over and event is None) or self.service.closing:
                        break
                    if event is None:
                        yield b": still here\n\n"
            gone = False
        except ApiError as error:
            gone = False
            yield self._failed(error)
        finally:
            self.service.streams -= 1
            waiting.leave(self.job.id, http, gone)

    async def _lines(self, event: JobEvent) -> AsyncIterator[bytes]:
        if event.kind == "progress":
            self._share[int(event.data.get("picture", 0))] = float(event.data.get("fraction", 0.0))
        elif event.kind == "preview" and event.preview is not None:
            line = await self._partial(int(event.data.get("picture", 0)), event.preview)
            if line is not None:
                yield line
        elif event.kind == "picture":
            yield await self._completed(str(event.data["id"]))
        elif event.kind in ENDED_BADLY:
            raise failure(await self.service.call(self.service.queue.job, self.job.id))

    async def _partial(self, picture: int, preview: bytes) -> bytes | None:
        """A partial picture, where it is time for the next one: they are spread over the steps."""
        number, wanted = self._sent.get(picture, 0), self.asked.fields.partial_images
        if number >= wanted:
            return None
        self._sent[picture] = number + 1
        kind, size = self.asked.fields.output_format, await self._size()
        data = await self.service.call(partial_picture, preview, kind, size)
        values = {"b64_json": base64_of(data), "partial_image_index": number, **self._common(size)}
        return self._line("partial_image", values)

    async def _completed(self, picture_id: str) -> bytes:
        gallery, fields = self.service.queue.gallery, self.asked.fields
        found = await self.service.call(gallery.picture, picture_id)
        file = await self.service.call(gallery.read, picture_id)
        values: dict[str, Any] = {"b64_json": base64_of(await self.service.call(in_format, file, fields))}
        values |= {"created_at": int(self.job.created), **said_of(fields, [file], [found])}
        return self._line("completed", {**values, "usage": usage_of(self.asked, [found])})

    async def _size(self) -> tuple[int, int]:
        settings = self.asked.settings
        if "width" in settings:
            return settings["width"], settings["height"]
        if self.asked.sizes:
            return self.asked.sizes[0]
        entry = self.service.library.models.find(settings["model"])
        return (await self.service.call(self.service.usual, entry))[0]

    def _common(self, size: tuple[int, int]) -> dict[str, Any]:
        fields = self.asked.fields
        return {
            "background": fields.background,
            "created_at": int(self.job.created),
            "output_format": fields.output_format,
            "quality": QUALITIES.get(fields.quality, fields.quality),
            "size": f"{size[0]}x{size[1]}",
        }

    def _line(self, end: str, values: dict[str, Any]) -> bytes:
        name = f"{self.kind}.{end}"
        if self.asked.fields.safety_identifier is not None:
            values["safety_identifier"] = self.asked.fields.safety_identifier
        return f"event: {name}\ndata: {json.dumps({'type': name, **values})}\n\n".encode()

    def _failed(self, error: Exception) -> bytes:
        found = as_api_error(error)
        body = error_of_openai(found.status, self.service.public(found.sentence), found.code, found.param)
        return f"event: error\ndata: {json.dumps({'type': 'error', **body})}\n\n".encode()


def picture_events(
    stream: PictureStream, waiting: Waiting, http: HttpRequest, early: Subscription
) -> StreamingResponse:
    """The answer that sends them; ApiError 429 where too many streams are open."""
    service = stream.service
    if service.streams >= service.settings.limits.streams:
        early.close()
        raise ApiError(429, "too many event streams are open", headers={"Retry-After": "5"})
    lines = stream.events(waiting, http, early)
    return StreamingResponse(lines, media_type="text/event-stream", headers=HEADERS)
