"""A real server on a free port of this machine, for tests: in a thread, with the built-in few-step model."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from stable_diffusion.server.listen import Listening, listen
from stable_diffusion.server.settings import Limits, ServerSettings

SMALL = {"prompt": "a red apple", "seed": 3, "steps": 1, "width": 64, "height": 64}
TOKEN = "correct-horse-battery"


def settings(folder: Path, **changes: Any) -> ServerSettings:
    """Settings on a free port."""
    limits = Limits(**changes.pop("limits", {}))
    return ServerSettings(data=folder / "data", port=0, model="embedded-fast", limits=limits, **changes)


@contextmanager
def running(chosen: ServerSettings) -> Iterator[Listening]:
    """The server, answering; ended afterwards."""
    listening = listen(chosen)
    thread = threading.Thread(target=listening.run, daemon=True)
    thread.start()
    while not listening.server.started and thread.is_alive():
        thread.join(0.02)
    try:
        yield listening
    finally:
        listening.stop()
        thread.join(20)


def port_of(listening: Listening) -> int:
    return int(listening.address.rpartition(":")[2])


def client(listening: Listening, **facts: Any) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port_of(listening)}", timeout=60, **facts)


def done(http: httpx.Client, job: str) -> dict[str, Any]:
    """The job once it has ended: its events end with it."""
    with http.stream("GET", f"/v1/jobs/{job}/events") as events:
        for _ in events.iter_lines():
            pass
    return http.get(f"/v1/jobs/{job}").json()


def make(http: httpx.Client, **changes: Any) -> dict[str, Any]:
    """A finished job of a small picture."""
    answer = http.post("/v1/jobs", json={**SMALL, **changes})
    assert answer.status_code == 202, answer.text
    return done(http, answer.json()["id"])


def raw(listening: Listening, request: bytes, seconds: float = 5.0) -> bytes:
    """What a connection answers to these bytes, to its end or for so many seconds."""
    with socket.create_connection(("127.0.0.1", port_of(listening)), timeout=seconds) as connection:
        connection.sendall(request)
        found = b""
        try:
            while piece := connection.recv(65536):
                found += piece
        except (TimeoutError, ConnectionError):
            pass
    return found


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def sentence(answer: httpx.Response) -> str:
    """The message of a failure, in our shape."""
    found = answer.json()
    assert set(found) == {"error"} and set(found["error"]) == {"message", "code", "param"}, found
    text: str = found["error"]["message"]
    assert text and "\n" not in text and "Traceback" not in text and "/" not in text.replace("image/", ""), text
    return text


def picture(width: int = 64, height: int = 64, kind: str = "PNG", colour: str = "teal", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, kind, **options)
    return file.getvalue()


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(event, data) of a stream of server-sent events."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "event" in lines:
            found.append((lines["event"], {**json.loads(lines["data"]), "event_id": int(lines["id"])}))
    return found
