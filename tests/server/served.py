"""A real server for tests: uvicorn on a free port of this machine, the built-in few-step model, tiny pictures.

    with served(tmp_path) as server:
        server.post("/sdapi/v1/txt2img", {"prompt": "a kite", "steps": 2, "width": 64, "height": 64})

`recorded(name)` is a request in the shape that a client sends, from `requests/`, with pictures in its places.
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw
from server_helpers import client, port_of, running, settings

from stable_diffusion.server.service import Service

REQUESTS = Path(__file__).parent / "requests"
FAST = "embedded-fast"


@dataclass(frozen=True)
class Served:
    """A server that runs, and what it does its work with."""

    address: str
    service: Service
    http: httpx.Client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        """A POST of JSON; None is one without body and content type."""
        return self.http.post(path, **options) if body is None else self.http.post(path, json=body, **options)

    def wait(self, condition: Any, seconds: float = 90.0) -> None:
        """Until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it took too long"
            time.sleep(0.02)


@contextmanager
def served(folder: Path, **changes: Any) -> Iterator[Served]:
    """A server whose data is in `folder`; `changes` are of `ServerSettings`."""
    with running(settings(folder, **changes)) as found, client(found) as http:
        yield Served(f"http://127.0.0.1:{port_of(found)}", found.app.state.service, http)


def picture(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A red disc on blue."""
    image = Image.new("RGB", size, (40, 80, 200))
    ImageDraw.Draw(image).ellipse((size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4), (220, 30, 30))
    return image


def middle(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A mask: its middle is white."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4))
    return mask


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def base64_text(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode()


def opened(text: str) -> Image.Image:
    """The picture in base64, without a prefix."""
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def recorded(name: str) -> dict[str, Any]:
    """A request of `requests/`: method, path, headers, json, reads; {{png}}, {{png_uri}} and {{mask}} are filled in."""
    text = (REQUESTS / f"{name}.json").read_text(encoding="utf-8")
    text = text.replace("{{png_uri}}", f"data:image/png;base64,{base64_text(picture())}")
    text = text.replace("{{png}}", base64_text(picture())).replace("{{mask}}", base64_text(middle()))
    found: dict[str, Any] = json.loads(text)
    return found


def names_of(prefix: str) -> list[str]:
    """The requests whose names begin so."""
    return sorted(path.stem for path in REQUESTS.glob(f"{prefix}*.json"))
