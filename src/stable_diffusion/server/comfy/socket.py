"""The WebSocket of ComfyUI's clients: how their graphs go on, with pictures that form."""

from __future__ import annotations

import io
import struct
import time
from typing import Any

from PIL import Image
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ...jobs import FINISHED, JobEvent
from .history import end_message, milliseconds
from .state import Comfy, Prompted, file_names

JPEG, PNG = 1, 2
PREVIEW = 1
"""The kind of a binary frame that holds a picture."""
KEEP_ALIVE = 15.0
ANYBODY = ("queued", *FINISHED)
"""Events after which everybody is shown the length of the queue."""


class ComfySocket:
    """One connection. `client` is the id that its graphs carry."""

    def __init__(self, comfy: Comfy, socket: WebSocket, client: str) -> None:
        self.comfy, self.socket, self.client = comfy, socket, client

    async def run(self) -> None:
        """Send until the client goes away."""
        with self.comfy.service.queue.subscribe(previews=True) as events:
            await self.status(first=True)
            while not self.comfy.service.closing:
                event = await events.next(KEEP_ALIVE)
                if self.socket.client_state != WebSocketState.CONNECTED:
                    return
                if event is not None:
                    await self._event(event)

    async def listen(self) -> None:
        """Read what the client says, which asks for nothing here, until it goes away."""
        try:
            while True:
                await self.socket.receive_text()
        except (WebSocketDisconnect, KeyError, RuntimeError):
            return

    async def send(self, kind: str, data: dict[str, Any]) -> None:
        await self.socket.send_json({"type": kind, "data": data})

    async def status(self, *, first: bool = False) -> None:
        """How many graphs are not over."""
        state = await self.comfy.service.call(self.comfy.service.queue.state)
        left = {"status": {"exec_info": {"queue_remaining": state.queued + len(state.running)}}}
        await self.send("status", {**left, "sid": self.client} if first else left)

    async def _event(self, event: JobEvent) -> None:
        if event.job:
            prompted = await self.comfy.of_job(event.job)
            if prompted is not None and prompted.client == self.client:
                await self._own(event, prompted)
        if event.kind in ANYBODY:
            await self.status()

    async def _own(self, event: JobEvent, prompted: Prompted) -> None:
        """An event of a graph of this client."""
        about: dict[str, Any] = {"prompt_id": prompted.id}
        node = prompted.plan.sampler
        if event.kind == "running":
            start = {**about, "timestamp": milliseconds(time.time())}
            await self.send("execution_start", start)
            await self.send("execution_cached", {"nodes": [], **start})
            await self.send("executing", {"node": node, "display_node": node, **about})
        elif event.kind == "progress":
            index, total = int(event.data.get("index", 0)), int(event.data.get("total", 1))
            await self.send("progress", {"value": min(index, total), "max": total, "node": node, **about})
        elif event.kind == "preview" and event.preview is not None:
            await self.socket.send_bytes(await self.comfy.service.call(preview_frame, event.preview))
        elif event.kind in FINISHED:
            await self._over(event, prompted, about)

    async def _over(self, event: JobEvent, prompted: Prompted, about: dict[str, Any]) -> None:
        job = await self.comfy.job(prompted)
        if job is None:
            return
        if event.kind == "done":
            pictures = await self.comfy.service.call(self.comfy.service.queue.pictures_of, job.id)
            for save in prompted.plan.saves:
                await self.send("executing", {"node": save, "display_node": save, **about})
                output = {"images": file_names(pictures)}
                await self.send("executed", {"node": save, "display_node": save, "output": output, **about})
        end = end_message(self.comfy, prompted, job)
        await self.send(end["type"], end["data"])
        await self.send("executing", {"node": None, **about})


def preview_frame(preview: bytes) -> bytes:
    """A preview as a binary frame: two numbers of 32 bits, big endian, and a JPEG, or a PNG where it is transparent."""
    kind = JPEG
    if not preview.startswith(b"\xff\xd8"):
        kind, file = PNG, io.BytesIO()
        with Image.open(io.BytesIO(preview)) as image:
            image.save(file, "PNG", compress_level=1)
        preview = file.getvalue()
    return struct.pack(">II", PREVIEW, kind) + preview
