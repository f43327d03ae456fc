"""Runs the application with uvicorn: the socket, TLS, and a timer for headers that do not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import StableDiffusionError
from ..jobs.worker import JobRunner
from .app import create_app
from .observe.log import note, start_log
from .resident.serve import ResidentSocket
from .settings import ServerSettings

MOST_HEADER = 32 * 1024
"""Bytes of a request's line and headers."""
MOST_FRAME = 2 * 2**20
"""Bytes of a frame of a WebSocket."""
GRACE = 5
"""Seconds that open requests have when the server stops."""


class TimedProtocol(H11Protocol):
    """A connection whose requests must have their headers within `header_seconds`; uvicorn waits for ever."""

    header_seconds = 10.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is None and self._is_idle:
            self._arm()
        super().data_received(data)
        if not self._is_idle:
            self._disarm()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._disarm()
        super().handle_websocket_upgrade(event)

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._is_idle:
            self.transport.abort()


@dataclass(frozen=True)
class Listening:
    """A server whose port is taken: `run` answers until it is asked to end, by a signal or `stop`."""

    app: FastAPI
    server: uvicorn.Server
    sock: Any
    address: str

    def run(self) -> None:
        self.server.run(sockets=[self.sock])

    def stop(self) -> None:
        """End `run`, which is in another thread."""
        self.server.should_exit = True


def serve(
    settings: ServerSettings,
    ready: Callable[[str], object] = lambda address: None,
    *,
    rebuild: bool = False,
    runners: Sequence[JobRunner] = (),
) -> None:
    """Serve until the process is asked to end; `ready` is called with the address that it listens at.

    rebuild  read the folder of pictures into the gallery first
    runners  one for each job that may run at once; () is one on the settings' device

    Errors are those of `listen`.
    """
    start_log()
    listening = listen(settings, runners)
    if rebuild:
        note("gallery rebuilt", pictures=listening.app.state.service.queue.gallery.rebuild())
    note("listening", address=listening.address)
    resident = ResidentSocket(listening.app.state.service)
    if settings.socket and resident.start():
        note("listening", socket=resident.path.name if resident.path is not None else "")
    ready(listening.address)
    try:
        listening.run()
    finally:
        resident.close()


def listen(settings: ServerSettings, runners: Sequence[JobRunner] = ()) -> Listening:
    """Take the queue's folder and the port.

    StableDiffusionError where the folder or port is taken, or a certificate cannot be read.
    """
    config = _config(settings)
    app = create_app(settings, runners)
    config.app = app
    sock = None
    try:
        sock = config.bind_socket()
        config.load()
    except SystemExit:  # uvicorn's way to say so
        app.state.service.close()
        raise StableDiffusionError(
            f"port {settings.port} of {settings.host!r} cannot be listened at: it is in use or not allowed"
        ) from None
    except (OSError, ValueError) as error:
        app.state.service.close()
        if sock is not None:
            sock.close()
        raise StableDiffusionError(f"the certificate or its key cannot be used: {error}") from None
    shown = "localhost" if settings.host in ("127.0.0.1", "localhost", "0.0.0.0", "::") else settings.host
    address = f"{settings.scheme}://{shown}:{sock.getsockname()[1]}"
    return Listening(app, uvicorn.Server(config), sock, address)


def _config(settings: ServerSettings) -> uvicorn.Config:
    protocol = type("Protocol", (TimedProtocol,), {"header_seconds": float(settings.limits.header_seconds)})
    return uvicorn.Config(
        app="",
        host=settings.host,
        port=settings.port,
        http=protocol,
        ws="websockets-sansio",
        ws_max_size=MOST_FRAME,
        ws_per_message_deflate=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MOST_HEADER,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=GRACE,
    )
