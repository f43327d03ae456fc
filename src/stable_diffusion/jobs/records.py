"""The rows of the queue as plain data: jobs, pictures, and how the queue is doing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

State: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
FINISHED: tuple[State, ...] = ("done", "failed", "cancelled", "lost")
"""States that a job does not leave by itself; `retry` alone brings it back."""
STATES: tuple[State, ...] = ("queued", "running", *FINISHED)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One order in the queue, as it was when it was read.

    body         the request as JSON, pictures as "sha256:..."; `JobService.request_of` makes a `Request` of it
    kind         "generate", or the name of another kind of work that the service was given a handler for
    seq          order of submission; `priority` higher goes first
    needs        hash of the model, adapters and controls: jobs of equal `needs` can share a loaded network
    label        what whoever submitted it calls it; the queue does not look at it
    attempts     how many times it was started; lost after the third
    count        pictures asked for       saved   whether its pictures belong in the gallery
    cancel       someone asked for its end
    error        one sentence, for failed and lost jobs       notes   on what was ignored or done otherwise
    created, started, finished    seconds since 1970
    """

    id: str
    seq: int
    owner: str
    kind: str
    state: State
    priority: int
    body: Mapping[str, Any] = field(repr=False)
    request_hash: str
    idempotency: str | None = None
    model: str = ""
    engine: str = ""
    needs: str = ""
    label: str = ""
    count: int = 1
    saved: bool = True
    attempts: int = 0
    worker: str | None = None
    cancel: bool = False
    error: str | None = None
    notes: tuple[str, ...] = ()
    created: float = 0.0
    started: float | None = None
    finished: float | None = None

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One finished picture: its row in the gallery.

    id           job and number: "5f0c...-0"    number   from 0, within its job
    file         path within the folder of the service, never shown to anyone
    format       "png", "webp" or "jpeg"        bytes    of the file       sha256   of the file
    parameters   the A1111 text that the file carries
    deleted      when it went to the bin, seconds since 1970; None for one that is not there
    """

    id: str
    job: str
    number: int
    owner: str
    file: str = field(repr=False)
    seed: int | None
    width: int
    height: int
    format: str
    bytes: int
    sha256: str
    prompt: str
    parameters: str = field(repr=False)
    starred: bool = False
    saved: bool = True
    seconds: float = 0.0
    deleted: float | None = None
    created: float = 0.0
    available: bool = True


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a queue.

    queue, owner    jobs that may wait, in all and of one owner
    attempts        starts after which a job that never ends is lost
    kept            ended jobs that stay in the list; their pictures stay for good
    window, ahead   a job of the loaded model may overtake this many places, and make another wait this many seconds
    lease           seconds after which a worker that says nothing is taken for dead
    bin_days        days that deleted pictures stay in the bin
    unsaved         seconds that pictures of jobs with `save=False` are kept
    """

    queue: int = 256
    owner: int = 64
    attempts: int = 3
    kept: int = 10_000
    window: int = 32
    ahead: float = 60.0
    lease: float = 60.0
    bin_days: float = 30.0
    unsaved: float = 3600.0


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """How the queue is doing. `model` is the one that a worker holds; `reason` says why the queue paused by itself.

    `seconds_left` is an estimate of when all of it is done; None while nothing is known of the speed.
    """

    paused: bool
    reason: str | None
    queued: int
    running: tuple[str, ...]
    model: str | None
    workers: int
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job stands: `position` 0 is running or next; `fraction` of it that is done; estimates in seconds."""

    position: int
    fraction: float = 0.0
    seconds_left: float | None = None


def content_hash(body: object) -> str:
    """The sha256 of JSON, whatever the order of its keys."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
