"""Bodies that come too slowly are cut: a deadline for the whole body, in the place where it is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from .guard import App, Receive, Scope, Send

SLOWEST = 64 * 1024
"""Bytes a second by which the time grows for a large body."""


class BodyDeadline:
    """An ASGI application around another one: `seconds` for a body, and one more for each `SLOWEST` bytes of it."""

    def __init__(self, app: App, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await self.app(scope, self._timed(receive), send)

    def _timed(self, receive: Receive) -> Receive:
        start, read, whole = time.monotonic(), 0, False

        async def timed() -> MutableMapping[str, Any]:
            nonlocal read, whole
            if whole:  # what comes after the body is the client's going away, for which there is no deadline
                return await receive()
            left = start + self.seconds + read / SLOWEST - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.0))
            except TimeoutError:
                # No other exception becomes an answer here.
                raise HTTPException(408, headers={"Connection": "close"}) from None
            read += len(message.get("body", b""))
            whole = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        return timed
