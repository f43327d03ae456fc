"""Every failure as an answer: the right status, one plain sentence without a path, in the shape of the API called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import InvalidRequest, ModelFileError, StableDiffusionError, brief
from ..jobs import DifferentBody, FolderInUse, JobFinished, PrunedJob, QueueFull, UnknownJob, UnknownPicture

MOST = 1000
"""Characters of a sentence that leaves."""
CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    410: "gone",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "too_many_requests",
    500: "internal_error",
    501: "not_implemented",
    503: "unavailable",
    507: "disk_full",
}
SENTENCES = {
    404: "there is nothing at this address",
    405: "this address does not take this method",
    408: "the request came too slowly",
    413: "the body is too large",
}
"""For failures that the framework itself answers."""
SOURCES = ("body", "query", "path", "header")
"""First words of the place of a fault, which say nothing to who wrote it."""
QUOTED = re.compile(r"""(['"])((?:/|~/|\\\\|[A-Za-z]:[\\/])[^'"\n]*)\1""")
BARE = re.compile(r"(?<![\w./:<])/(?:[\w.+-]+/)+[\w.+-]+")


class ApiError(Exception):
    """A request fails: with this status, sentence and code; `param` is the field at fault, `headers` go out with it."""

    def __init__(
        self,
        status: int,
        sentence: str,
        *,
        code: str = "",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.param = status, sentence, param
        self.code = code or CODES.get(status, "error")
        self.headers = dict(headers or {})


STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (DifferentBody, 409),
    (JobFinished, 409),
    (PrunedJob, 410),
    (UnknownJob, 404),
    (UnknownPicture, 404),
    (FolderInUse, 503),
    (InvalidRequest, 400),
    (ModelFileError, 400),
    (StableDiffusionError, 500),
)
"""Errors of the package -> status; the first that fits."""
Body = Callable[[int, str, str, "str | None"], dict[str, Any]]
"""(status, sentence, code, field or None) -> the body of the answer."""


@dataclass(frozen=True)
class ErrorShape:
    """How an API writes errors, for addresses that begin with one of `prefixes`."""

    prefixes: tuple[str, ...]
    body: Body


def plain_body(status: int, sentence: str, code: str, param: str | None) -> dict[str, Any]:
    """Our own shape."""
    return {"error": {"message": sentence, "code": code, "param": param}}


class Errors:
    """Makes answers of failures; `roots` are folders that no sentence names, `shapes` those of the APIs."""

    def __init__(self, roots: Iterable[Path], shapes: Iterable[ErrorShape] = ()) -> None:
        known = {str(form) for root in roots for form in (root, root.expanduser(), root.expanduser().absolute())}
        self.roots = sorted(known - {"", ".", "/"}, key=len, reverse=True)
        self.shapes = [(prefix, shape.body) for shape in shapes for prefix in shape.prefixes]
        self.shapes.sort(key=lambda pair: len(pair[0]), reverse=True)

    def public(self, text: str) -> str:
        """The sentence without folders of this machine: of a path its last name is left."""
        for root in self.roots:
            text = text.replace(root + "/", "").replace(root, Path(root).name)
        text = QUOTED.sub(lambda found: f"{found[1]}{_last(found[2])}{found[1]}", text)
        text = BARE.sub(lambda found: _last(found[0]), text)
        return brief(text, MOST)

    def body(self, path: str, error: ApiError) -> dict[str, Any]:
        """The body for an address."""
        shape = next((body for prefix, body in self.shapes if path.startswith(prefix)), plain_body)
        return shape(error.status, self.public(error.sentence), error.code, error.param)

    def answer(self, path: str, error: ApiError) -> JSONResponse:
        """The answer for an address."""
        return JSONResponse(self.body(path, error), error.status, headers=error.headers)

    def install(self, app: FastAPI) -> None:
        """Handle every failure of an application."""

        async def handle(request: Request, error: Exception) -> JSONResponse:
            return self.answer(request.url.path, as_api_error(error))

        kinds = (ApiError, StableDiffusionError, HTTPException, RequestValidationError, Exception)
        for kind in kinds:
            app.add_exception_handler(kind, handle)


def _last(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def as_api_error(error: Exception) -> ApiError:
    """Any failure as one with a status; what is not ours says nothing of itself."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        return ApiError(429, str(error), code="queue_full", headers={"Retry-After": str(error.retry_after)})
    for kind, status in STATUSES:
        if isinstance(error, kind):
            return ApiError(status, str(error))
    if isinstance(error, RequestValidationError):
        return _validation(error)
    if isinstance(error, HTTPException):
        sentence = SENTENCES.get(error.status_code) or str(error.detail)
        if error.status_code == 400 and "body" in sentence.lower():
            sentence = "the body cannot be read; expected what the Content-Type says"
        return ApiError(error.status_code, sentence, headers=error.headers)
    return ApiError(500, "the server failed here; its log says why")


def _validation(error: RequestValidationError) -> ApiError:
    faults = error.errors()
    place = [str(part) for part in (faults[0].get("loc", ()) if faults else ()) if part not in SOURCES]
    return ApiError(422, validation_sentence(faults), param=brief(".".join(place), 80) or None)


def validation_sentence(faults: Sequence[Any]) -> str:
    """The first fault in a sentence, without what was given: it may be anything."""
    first: Mapping[str, Any] = faults[0] if faults else {}
    place = [str(part) for part in first.get("loc", ()) if part not in SOURCES]
    name = brief(".".join(place) or "the body", 80)
    if first.get("type") == "json_invalid":
        return "the body is no JSON"
    known = str(first.get("msg", "unusable"))
    if first.get("type") == "value_error":  # our own sentence, which names the value
        return known.removeprefix("Value error, ")
    return f"{name}: {known[:1].lower() + known[1:]}"
