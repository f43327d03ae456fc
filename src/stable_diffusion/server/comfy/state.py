"""What ComfyUI's routes remember between requests: graphs that were sent, pictures that were uploaded.

ComfyUI keeps both in memory too; jobs and pictures themselves outlive the server.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends
from fastapi.requests import HTTPConnection

from ...jobs import Job, JobError, Picture, UnknownPicture
from ..pictures import is_digest
from ..service import Service, ServiceIs, state_of
from .planning import Plan

MOST_KEPT = 1000
NOT_IN_NAMES = re.compile(r"[^\w.\- ()]+")
ANNOTATION = re.compile(r"\s*\[(?:input|output|temp)\]$")
"""Of the folder, which some clients write behind a name."""


@dataclass
class Prompted:
    """A graph that was sent, and the job that it became. `whole` is its entry in the history, once it is over."""

    id: str
    number: int
    graph: dict[str, Any]
    extra: dict[str, Any]
    plan: Plan
    client: str
    job: str = ""
    whole: dict[str, Any] | None = None
    hidden: bool = False

    @property
    def ticket(self) -> list[Any]:
        """As ComfyUI lists it."""
        return [self.number, self.id, self.graph, self.extra, list(self.plan.saves)]


@dataclass
class Comfy:
    """The state of ComfyUI's API on one server."""

    service: Service
    prompts: OrderedDict[str, Prompted] = field(default_factory=OrderedDict)
    uploads: OrderedDict[str, str] = field(default_factory=OrderedDict)
    submitting: asyncio.Lock = field(default_factory=asyncio.Lock)
    number: int = 0
    _jobs: dict[str, str] = field(default_factory=dict)

    def add(self, prompted: Prompted) -> None:
        """Remember a graph whose job is known."""
        self.prompts[prompted.id] = prompted
        self._jobs[prompted.job] = prompted.id
        while len(self.prompts) > MOST_KEPT:
            _, old = self.prompts.popitem(last=False)
            self._jobs.pop(old.job, None)

    async def of_job(self, job_id: str) -> Prompted | None:
        """The graph of a job. One that is just being submitted is waited for: its first events come before its id."""
        async with self.submitting:
            return self.prompts.get(self._jobs.get(job_id, ""))

    def upload(self, name: str, digest: str, *, overwrite: bool) -> str:
        """Remember an uploaded picture; the name under which a graph loads it."""
        clean = NOT_IN_NAMES.sub("_", name.replace("\\", "/").rpartition("/")[2]).strip(" .")[:100] or "picture.png"
        stem, sign, ending = clean.rpartition(".")
        free, number = clean, 0
        while not overwrite and self.uploads.get(free, digest) != digest:
            number += 1
            free = f"{stem} ({number}){sign}{ending}" if sign else f"{clean} ({number})"
        self.uploads[free] = digest
        self.uploads.move_to_end(free)
        while len(self.uploads) > MOST_KEPT:
            self.uploads.popitem(last=False)
        return free

    def picture_text(self, name: str) -> str | None:
        """What a request calls the picture of a name: an upload, or one that was made here; None for neither."""
        plain = ANNOTATION.sub("", name)
        if plain in self.uploads:
            return f"sha256:{self.uploads[plain]}"
        stem = plain.rpartition(".")[0] or plain
        if is_digest(stem):
            return f"sha256:{stem}"
        try:
            self.service.queue.gallery.picture(stem)
        except UnknownPicture:
            return None
        return f"picture:{stem}"

    async def job(self, prompted: Prompted) -> Job | None:
        """The job of a graph; None where it was forgotten."""
        try:
            return await self.service.call(self.service.queue.job, prompted.job)
        except JobError:
            return None

    async def unfinished(self) -> list[tuple[Prompted, Job]]:
        """Graphs whose jobs wait or run, the oldest first."""
        found = []
        for each in list(self.prompts.values()):
            if each.whole is None:
                job = await self.job(each)
                if job is not None and not job.is_finished:
                    found.append((each, job))
        return found


def file_names(pictures: list[Picture]) -> list[dict[str, str]]:
    """Pictures as nodes show them: what /view takes."""
    return [{"filename": f"{each.id}.{each.format}", "subfolder": "", "type": "output"} for each in pictures]


def get_comfy(connection: HTTPConnection, service: ServiceIs) -> Comfy:
    """The state of the application that is asked."""
    return state_of(connection, "comfy", lambda: Comfy(service))


ComfyIs = Annotated[Comfy, Depends(get_comfy)]
"""A parameter of a route that is the state of ComfyUI's API."""
