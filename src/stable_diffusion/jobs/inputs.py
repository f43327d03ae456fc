"""Requests as the queue holds them: JSON without pictures, and the pictures as files named by their sha256."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..atomic import whole_file
from ..errors import InvalidRequest
from ..request.control import Control
from ..request.fields import Picture as PictureField
from ..request.group import own_settings
from ..request.json import from_json, to_json
from ..request.request import MAX_COUNT, Request, all_settings
from ..request.settings import MAX_SEED, Inpaint
from .database import Database, sqlalchemy
from .files import DiskRefused, disk_words
from .records import content_hash

MARK = "sha256:"
_HASH = re.compile(r"[0-9a-f]{64}")
UNUSED_SECONDS = 24 * 3600.0
"""Uploaded pictures that no job names stay so long."""


class Inputs:
    """Pictures that requests start from: files in a folder, each under the sha256 of its bytes."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder

    def add(self, data: bytes) -> str:
        """Keeps the bytes of a picture file; returns their sha256, by which requests name it ("sha256:...").

        What the bytes are is not looked at here: `Request` opens and checks them when a job is submitted.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        try:
            if not path.is_file() or path.stat().st_size != len(data):
                with whole_file(path) as file:
                    file.write(data)
        except OSError as error:
            raise DiskRefused(f"the picture could not be kept: {disk_words(error)}") from error
        sa, inputs = sqlalchemy(), self.database.inputs
        with self.database.write() as connection:
            known = sa.update(inputs).where(inputs.c.hash == digest).values(created=time.time())
            if connection.execute(known).rowcount == 0:
                connection.execute(sa.insert(inputs).values(hash=digest, bytes=len(data), created=time.time()))
        return digest

    def read(self, digest: str) -> bytes:
        """The bytes of an uploaded picture; InvalidRequest where there is none of this hash."""
        if not isinstance(digest, str) or not _HASH.fullmatch(digest):
            raise InvalidRequest(f"{str(digest)[:80]!r} is not the sha256 of a picture; expected 64 hexadecimal digits")
        try:
            return self._path(digest).read_bytes()
        except OSError:
            raise InvalidRequest(f"there is no uploaded picture {digest[:12]}...; upload it once more") from None

    def remove_unused(self) -> int:
        """Removes pictures that no job names and that were uploaded a day ago; returns how many."""
        sa, inputs, used = sqlalchemy(), self.database.inputs, self.database.job_inputs
        old = (inputs.c.created < time.time() - UNUSED_SECONDS) & inputs.c.hash.not_in(sa.select(used.c.hash))
        with self.database.write() as connection:
            gone = [row.hash for row in connection.execute(sa.delete(inputs).where(old).returning(inputs.c.hash))]
        for digest in gone:
            self._path(digest).unlink(missing_ok=True)
        return len(gone)

    def body_of(self, request: Request) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The request as JSON with its pictures put away, and their hashes."""
        body, hashes = to_json(request), []
        for holder, name in _picture_places(body):
            digest = self.add(base64.b64decode(holder[name]))
            holder[name] = MARK + digest
            hashes.append(digest)
        return body, tuple(dict.fromkeys(hashes))

    def request_of(self, body: Mapping[str, Any], *, files: bool = True) -> Request:
        """The request of a body; "sha256:..." in the place of a picture is the uploaded one.

        files   whether other paths are taken too (adapters, folders): True for what the queue itself wrote
        """
        if not isinstance(body, Mapping):
            return from_json(body, files=files)
        data = {
            name: [dict(each) if isinstance(each, Mapping) else each for each in value]
            if name == "controls" and isinstance(value, list)
            else dict(value)
            if isinstance(value, Mapping)
            else value
            for name, value in body.items()
        }
        for holder, name in _picture_places(data):
            if isinstance(holder[name], str) and holder[name].startswith(MARK):
                picture = self.read(holder[name].removeprefix(MARK))
                holder[name] = base64.b64encode(picture).decode("ascii")
        return from_json(data, files=files)

    @staticmethod
    def seeds_of(request: Request) -> dict[str, Any]:
        """The part of a request's JSON that holds its seeds."""
        bare = to_json(replace(request, image=None, mask=None, depth=None, controls=(), inpaint=Inpaint()))
        return {name: bare[name] for name in ("seed", "variation") if name in bare}

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest


def _picture_places(body: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """Where a request's JSON holds pictures: dictionaries and the keys in them."""
    for each in all_settings():
        holder = body.get(each.group) if each.group else body
        if isinstance(each.kind, PictureField) and isinstance(holder, dict) and holder.get(each.name) is not None:
            yield holder, each.name
    controls = body.get("controls")
    for control in controls if isinstance(controls, list) else ():
        for each in own_settings(Control):
            if isinstance(each.kind, PictureField) and isinstance(control, dict) and control.get(each.name) is not None:
                yield control, each.name


def with_seeds(request: Request, draw: Callable[[], int] = lambda: secrets.randbits(32)) -> Request:
    """The request with the seeds drawn that it leaves open, so that trying it again makes the same pictures."""
    most = MAX_SEED - MAX_COUNT
    if request.seed is None:
        request = replace(request, seed=min(draw(), most))
    if request.variation.strength > 0 and request.variation.seed is None:
        request = replace(request, variation=replace(request.variation, seed=min(draw(), most)))
    return request


def tail(request: Request, first: int) -> Request:
    """The pictures of a request from number `first` on, each the same as in the whole request."""
    return request if first == 0 else replace(request.single(first), count=request.count - first)


def needs_of(request: Request, engine: str = "") -> str:
    """A hash of what must be loaded for a request: model, refiner, adapters, controls and engine."""
    body = to_json(replace(request, prompt="", image=None, mask=None, depth=None))
    names = ("model", "refiner", "loras", "lora_dir", "embeddings_dir")
    tags = sorted(set(re.findall(r"<(?:lora|lyco|hypernet):[^<>\n]+>", request.prompt)))
    controls = [str(control.path) for control in request.controls]
    return content_hash([[body.get(name) for name in names], tags, controls, engine])[:16]
