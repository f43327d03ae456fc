"""The protocol over HTTP, at /mcp of the server: behind the same guard, token and limits as everything else.

The package of the protocol is imported, and its sessions begin, at the first request.
"""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

from starlette.routing import Route

from ..errors import ApiError
from ..guard import Receive, Scope, Send
from ..service import Service
from .tools import Toolbox

MOST_SESSIONS = 64
IDLE = 1800.0
"""Seconds after which a session that asks nothing ends."""
PATH = "/mcp"


def is_installed() -> bool:
    """Whether the package of the protocol is there."""
    return importlib.util.find_spec("mcp") is not None


class McpDoor:
    """An ASGI application that speaks the protocol's streamable HTTP."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._manager: Any = None
        self._task: asyncio.Task[None] | None = None
        self._ready, self._over = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.service.closing:
            raise ApiError(503, "the server is stopping")
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        await self._ready.wait()
        await self._manager.handle_request(scope, receive, send)

    async def close(self) -> None:
        """End the sessions."""
        self._over.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        from .protocol import protocol_server

        self._manager = StreamableHTTPSessionManager(
            app=protocol_server(Toolbox(self.service)),
            max_request_body_size=self.service.settings.limits.body,
            max_sessions=MOST_SESSIONS,
            session_idle_timeout=IDLE,
        )
        async with self._manager.run():
            self._ready.set()
            await self._over.wait()


def mcp_route(door: McpDoor) -> Route:
    """The address of the protocol."""
    return Route(PATH, door, methods=["GET", "POST", "DELETE"], include_in_schema=False)
