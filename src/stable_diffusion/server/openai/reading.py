"""Bodies of OpenAI's clients: JSON, or a form with pictures in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from ..errors import ApiError
from ..pictures import from_text
from .fields import MOST_START_PICTURES

IMAGES = ("image", "image[]", "images", "images[]")
MOST_FIELDS = 40


@dataclass(frozen=True)
class Given:
    """What a body holds: its fields, and the pictures as they came. `text` says whether all values are text."""

    fields: Mapping[str, Any]
    text: bool = False
    images: tuple[bytes, ...] = ()
    mask: bytes | None = field(default=None, repr=False)


async def json_body(http: Request) -> dict[str, Any]:
    """The JSON object of a body; ApiError 400 or 415 else."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and not kind.endswith("json"):
        raise ApiError(415, f"the body is {kind[:60]!r}; expected application/json", code="unsupported_content_type")
    return json_object(await http.body())


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object in bytes; ApiError 400 for anything else, NaN and infinity too."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    try:
        found = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is no JSON", code="invalid_json") from None
    if not isinstance(found, dict):
        raise ApiError(400, "the body is no JSON object", code="invalid_json")
    return found


async def given_pictures(http: Request) -> Given:
    """The body of edits and variations: multipart, or JSON with data URIs in `images[].image_url`."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return _from_json(await json_body(http))
    fields: dict[str, Any] = {}
    images: list[bytes] = []
    mask: bytes | None = None
    try:
        async with http.form(max_files=MOST_START_PICTURES + 1, max_fields=MOST_FIELDS) as form:
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    fields[name] = value
                elif name in IMAGES:
                    images.append(await value.read())
                elif name == "mask":
                    mask = await value.read()
    except MultiPartException as error:
        raise ApiError(400, f"the form cannot be read: {error.message}", code="invalid_form") from None
    for name in IMAGES:
        if isinstance(fields.get(name), str) and fields[name]:
            images.append(from_text(fields[name], "image"))
    return Given(fields, True, tuple(images), mask)


def _from_json(body: Mapping[str, Any]) -> Given:
    given = body.get("images", body.get("image"))
    listed = given if isinstance(given, list) else [] if given is None else [given]
    if len(listed) > MOST_START_PICTURES:
        sentence = f"images has {len(listed)} pictures; expected at most {MOST_START_PICTURES}"
        raise ApiError(400, sentence, code="invalid_value", param="images")
    mask = body.get("mask")
    images = tuple(from_text(_address(each), "image") for each in listed)
    return Given(body, False, images, None if mask is None else from_text(_address(mask), "mask"))


def _address(value: object) -> object:
    return value.get("image_url") if isinstance(value, Mapping) else value
