"""The live picture: frames of a camera go up, pictures come down, prompt and strength change in between.

Text frames are JSON settings; binary frames are `uint32 id` (little endian) and a picture up, and `uint32 id`,
`float32 milliseconds` and a picture down: JPEG, or WebP where it is transparent. One frame is worked on, one waits, and
a newer one takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError

from ...errors import InvalidRequest
from ...images import preview_bytes
from ...live import LivePainter
from ...request.pictures import cover, plain_mode
from ...request.request import Request
from ..auth import OwnerIs
from ..errors import as_api_error, validation_sentence
from ..pictures import decode
from ..schema import LoraChoice, Name, Strict, given
from ..service import Service, ServiceIs
from .shapes import picture_json

router = APIRouter(prefix="/v1", tags=["live"])
REPLACED, TOO_LARGE = 4009, 1009
MOST_TEXT = 64 * 1024
MOST_SIDE = 1024
UP, DOWN = struct.Struct("<I"), struct.Struct("<If")
Seed = Annotated[int, Field(ge=-1, le=2**63 - 1, strict=True)]
Words = Annotated[str, Field(max_length=10_000)]


class LiveSettings(Strict):
    """What changes while frames flow; a field that is left out stays as it is, null puts it back to what is usual."""

    prompt: Words | None = None
    negative_prompt: Words | None = None
    strength: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    seed: Seed | None = None
    size: Annotated[int, Field(ge=64, le=MOST_SIDE, strict=True)] | None = None
    width: Annotated[int, Field(ge=64, le=MOST_SIDE, strict=True)] | None = None
    height: Annotated[int, Field(ge=64, le=MOST_SIDE, strict=True)] | None = None
    steps: Annotated[int, Field(ge=1, le=50, strict=True)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100, strict=True)] | None = None
    sampler: Annotated[str, Field(max_length=100)] | None = None
    model: Name | None = None
    loras: Annotated[list[LoraChoice], Field(max_length=8)] | None = None
    background: Annotated[str, Field(max_length=40)] | None = None
    keep: bool = False


USUAL: dict[str, Any] = {"prompt": "", "strength": 0.5, "seed": 0, "size": 256, "model": "embedded-fast"}


@dataclass
class Live:
    """One open socket."""

    socket: WebSocket
    service: Service
    owner: str
    settings: dict[str, Any] = field(default_factory=lambda: dict(USUAL))
    base: Request | None = None
    waiting: tuple[int, bytes] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    last: Request | None = None
    painter: LivePainter | None = None

    async def say(self, kind: str, **facts: Any) -> None:
        await self.socket.send_text(json.dumps({"type": kind, **facts}))

    async def receive(self) -> None:
        """Take settings and frames until the client goes away."""
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is not None:
                await self._frame(message["bytes"])
            elif message.get("text") is not None:
                await self._settings(message["text"])

    async def _frame(self, data: bytes) -> None:
        if len(data) <= UP.size:
            await self.say("error", message="a frame is a number of 4 bytes and a picture")
            return
        if self.waiting is not None:
            self.service.metrics.frames.labels("dropped").inc()
            await self.say("dropped", id=self.waiting[0])
        self.waiting = (UP.unpack_from(data)[0], data[UP.size :])
        self.changed.set()

    async def _settings(self, text: str) -> None:
        try:
            if len(text) > MOST_TEXT:
                raise InvalidRequest(f"the settings have {len(text)} characters; expected at most {MOST_TEXT}")
            model = LiveSettings.model_validate_json(text)
            asked = given(model)
            emptied = model.model_fields_set - asked.keys()
            if asked.pop("keep", False):
                await self._keep()
                if not asked and not emptied:
                    return
            usual = {name: USUAL.get(name) for name in emptied}
            settings = {name: value for name, value in {**self.settings, **usual, **asked}.items() if value is not None}
            self.base = await self.service.request(as_request(settings))
            self.settings = settings
            await self.say("ready", settings=settings)
        except ValidationError as error:
            await self.say("error", message=self.service.public(validation_sentence(error.errors())))
        except Exception as error:
            await self.say("error", message=self.service.public(as_api_error(error).sentence))

    async def _keep(self) -> None:
        """The last answer as a picture of the gallery: the same request, run as a job."""
        if self.last is None:
            raise InvalidRequest("there is no picture to keep yet")
        done = await self.service.run(self.last, self.owner)
        await self.say("kept", job=done.job.id, picture=picture_json(done.pictures[0]))

    async def answer(self) -> None:
        """Make pictures of the newest frame, one at a time, for ever."""
        while True:
            await self.changed.wait()
            self.changed.clear()
            if self.waiting is None:
                continue
            (number, data), self.waiting = self.waiting, None
            start = time.perf_counter()
            try:
                if self.base is None:
                    self.base = await self.service.request(as_request(self.settings))
                image, self.last = await self.service.call(self._make, data, self.base)
            except Exception as error:
                self.service.metrics.frames.labels("failed").inc()
                await self.say("error", id=number, message=self.service.public(as_api_error(error).sentence))
                continue
            self.service.metrics.frames.labels("answered").inc()
            took = 1000 * (time.perf_counter() - start)
            await self.socket.send_bytes(DOWN.pack(number, took) + image)

    def _make(self, data: bytes, base: Request) -> tuple[bytes, Request]:
        """The answer to a frame, and what made it; in a thread."""
        if self.service.settings.content_checker is not None:
            raise InvalidRequest("live pictures are off: this server checks pictures, and frames are too fast for that")
        frame = decode(data, "the frame", self.service.settings.limits.image_pixels)
        image = cover(frame, base.width or 256, base.height or 256)
        request = replace(base, image=plain_mode(image), strength=self.settings["strength"])
        if self.painter is None or not self.painter.fits(request):
            self.painter = LivePainter(self.service.runner, request)
        return preview_bytes(self.painter.paint(request)), replace(request, seed=self.painter.seed)


def as_request(settings: dict[str, Any]) -> dict[str, Any]:
    """Live settings as those of a job, without the picture."""
    found = {name: value for name, value in settings.items() if name not in ("size", "strength")}
    found.setdefault("width", settings["size"])
    found.setdefault("height", settings["size"])
    return found


@router.websocket("/live")
async def live(socket: WebSocket, service: ServiceIs, owner: OwnerIs) -> None:
    """Runs until the client goes away, or opens another one."""
    await socket.accept()
    older = service.sockets.get(owner)
    service.sockets[owner] = socket
    if older is not None:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await older.close(REPLACED, "another live picture was opened")
    session = Live(socket, service, owner)
    worker = asyncio.create_task(session.answer())
    try:
        await session.receive()
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        worker.cancel()
        if service.sockets.get(owner) is socket:
            del service.sockets[owner]
