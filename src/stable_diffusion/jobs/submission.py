"""From what somebody asks to the job that is written: pictures put away, open seeds drawn, hashes taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..errors import InvalidRequest, what_is
from ..request.request import Request
from .inputs import MARK, Inputs, needs_of, with_seeds
from .records import content_hash
from .store import Submission


def asked_for(inputs: Inputs, request: Request | Mapping[str, Any], owner: str, engine: str = "") -> Submission:
    """The job of a request for pictures. `request_hash` is of what was asked, before open seeds were drawn."""
    asked = inputs.request_of(request, files=False) if isinstance(request, Mapping) else request
    if not isinstance(asked, Request):
        raise InvalidRequest(f"the request is {what_is(request)}; expected a Request")
    body, hashes = inputs.body_of(asked)
    return Submission(
        body=body | inputs.seeds_of(with_seeds(asked)),
        request_hash=content_hash(["generate", engine, body]),
        owner=checked_owner(owner),
        model=asked.model or "",
        engine=engine,
        needs=needs_of(asked, engine),
        count=asked.count,
        hashes=hashes,
    )


def other_work(body: object, owner: str, kind: str, kinds: Collection[str]) -> Submission:
    """The job of another kind: any JSON, whose texts "sha256:..." name uploaded pictures."""
    if kind not in kinds:
        raise InvalidRequest(f"there is nothing here that does jobs of the kind {kind!r}")
    if not isinstance(body, Mapping):
        raise InvalidRequest(f"the job is {what_is(body)}; expected a JSON object")
    texts = [each for each in body.values() if isinstance(each, str)]
    return Submission(
        body=dict(body),
        request_hash=content_hash([kind, dict(body)]),
        owner=checked_owner(owner),
        kind=kind,
        hashes=tuple(text.removeprefix(MARK) for text in texts if text.startswith(MARK)),
    )


def checked_owner(owner: object) -> str:
    """The name of an owner; InvalidRequest where it is none."""
    if not isinstance(owner, str) or not owner:
        raise InvalidRequest(f"the owner is {what_is(owner)}; expected a name")
    return owner
