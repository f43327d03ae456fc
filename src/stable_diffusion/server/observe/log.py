"""The log: one JSON object a line, with nothing in it that a client could break a line with, and without prompts."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from ...errors import brief
from ..guard import App, Receive, Scope, Send
from .status import StatusSeen

NAME = "stable_diffusion.server"
LOGGER = logging.getLogger(NAME)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, what happened, and the fields given with `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": brief(record.getMessage(), 300),
        }
        fields = getattr(record, "fields", {})
        found |= {name: brief(value, 300) if isinstance(value, str) else value for name, value in fields.items()}
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=True, default=str)


def start_log(level: int = logging.INFO) -> None:
    """Send the log of the server and of uvicorn to stderr as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (NAME, "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level if name == NAME else logging.WARNING)
    logging.getLogger("uvicorn.access").handlers = []


def note(event: str, **fields: Any) -> None:
    """A line of the log."""
    LOGGER.info(event, extra={"fields": fields})


class AccessLog:
    """An ASGI application around another one that logs every request: method, path, status, milliseconds."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        start, seen = time.perf_counter(), StatusSeen(send, 0)
        try:
            await self.app(scope, receive, seen)
        finally:
            client = scope.get("client")
            note(
                "request",
                method=scope.get("method", "WEBSOCKET"),
                path=scope["path"][:200],
                status=seen.status,
                milliseconds=round(1000 * (time.perf_counter() - start), 1),
                client=client[0] if client else "socket",
            )
