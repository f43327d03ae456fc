"""Pictures of a server that the user named by its address: its own API, and nothing else than what it makes.

The token, where the server needs one, comes from STABLE_DIFFUSION_SERVER_TOKEN.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from ...errors import StableDiffusionError
from ...request.json import to_json
from ...request.request import Request
from .picture import NotServed, ServedPicture, Watch

TOKEN = "STABLE_DIFFUSION_SERVER_TOKEN"
SECONDS, LONG = 10.0, 600.0
"""To be answered, and between two events of a job."""
FILES = ("loras", "controls", "lora_dir", "embeddings_dir", "refiner")
"""Settings that name files of this machine."""


def pictures_of_url(address: str, request: Request, watch: Watch) -> Iterator[ServedPicture]:
    """The pictures of a request, made by the server at `address`, of which `request` may name no file of this machine.

    NotServed where it does, OSError or StableDiffusionError where the server does not make them.
    """
    body = to_json(request)
    folders = body.get("prompting", {}).keys() & {"wildcards_dir", "styles_file"}
    if any(body.get(name) for name in FILES) or folders or os.sep in str(body.get("model", "")):
        raise NotServed
    server = _Server(address)
    job = server.json("POST", "/v1/jobs", {"model": "embedded", **body})
    try:
        for kind, data in server.events(f"/v1/jobs/{job['id']}/events"):
            if kind == "progress":
                watch.progress(data["picture"], data["pictures"], data["index"], data["total"])
        done = server.json("GET", f"/v1/jobs/{job['id']}")
    except BaseException:
        server.cancel(job["id"])
        raise
    if done["state"] != "done":
        raise StableDiffusionError(done["error"] or f"the job was {done['state']}")
    for note in done["notes"]:
        watch.note(f"note: {note}")
    for each in done["pictures"]:
        file = server.read("GET", f"/v1/gallery/{each['id']}/file")
        yield ServedPicture(file, int(each["seed_text"]), each["prompt"], each["width"], each["height"])


class _Server:
    """One server, asked over a connection for each question."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        kind: type[http.client.HTTPConnection] = http.client.HTTPConnection
        if parts.scheme == "https":
            kind = http.client.HTTPSConnection
        if parts.hostname is None:
            raise NotServed
        self._connect: Callable[[float], http.client.HTTPConnection] = lambda seconds: kind(
            parts.hostname or "", parts.port, timeout=seconds
        )
        self._before = parts.path.rstrip("/")
        token = os.environ.get(TOKEN)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def read(self, method: str, path: str, body: object = None, seconds: float = SECONDS) -> bytes:
        """The body of an answer; StableDiffusionError where it is a failure."""
        connection = self._connect(seconds)
        try:
            sent = None if body is None else json.dumps(body).encode()
            headers = {**self._headers, **({} if sent is None else {"Content-Type": "application/json"})}
            connection.request(method, self._before + path, sent, headers)
            answer = connection.getresponse()
            data: bytes = answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from None
        finally:
            connection.close()
        if answer.status >= 400:
            raise StableDiffusionError(f"it answers {answer.status}")
        return data

    def json(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The same as an object."""
        found: dict[str, Any] = json.loads(self.read(method, path, body))
        return found

    def events(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(kind, data) of a stream of events, to its end."""
        connection = self._connect(LONG)
        try:
            connection.request("GET", self._before + path, None, self._headers)
            answer = connection.getresponse()
            kind = ""
            for raw in answer:
                line = raw.decode("utf-8").rstrip("\n")
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: "):
                    yield kind, json.loads(line[6:])
        except http.client.HTTPException as error:
            raise OSError(str(error)) from None
        finally:
            connection.close()

    def cancel(self, job: str) -> None:
        """End a job that nobody waits for."""
        try:
            self.read("DELETE", f"/v1/jobs/{job}", seconds=2.0)
        except (OSError, StableDiffusionError):
            pass
