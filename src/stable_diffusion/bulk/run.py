"""A bulk run from its file to its manifest, a state at a time for whoever shows how far it is."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import InvalidRequest, StableDiffusionError
from ..jobs.database import Database, sqlalchemy, sqlite_url
from ..jobs.files import DataFolder
from ..jobs.inputs import Inputs
from ..jobs.lease import Leases
from ..jobs.options import StoredSettings
from ..jobs.store import JobStore
from ..request.axes import Axis
from ..request.prompt_file import PromptLine
from .output import TWINS, BulkOutput
from .plan import PLANNED, Planner, Shard, requests_of
from .processes import Processes
from .work import STOPPED, WorkOrder

LOOK = 0.5
"""Seconds from one state to the next."""
PACK_EVERY = 30.0
"""Seconds from one look for complete tar files to the next."""


@dataclass(frozen=True, kw_only=True)
class BulkStatus:
    """How far a run is: pictures `done` of `total`, jobs `failed`, and how many pictures were there at its start."""

    done: int
    total: int
    failed: int
    before: int
    twins: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """At the speed since the start; None before the first picture."""
        made = self.done - self.before
        return None if made < 1 else (self.total - self.done) * self.seconds / made


@dataclass(frozen=True, kw_only=True)
class BulkPlan:
    """What is to be made: lines, settings where they say nothing, the axes of a grid, and which part of it all.

    key   what tells this plan from another one: with the same key, a run that was cut off need not read the lines again
    """

    lines: Callable[[], Iterable[PromptLine]]
    base: Mapping[str, Any]
    axes: Sequence[Axis] = ()
    shard: Shard = field(default_factory=Shard)
    key: str = ""


class Team(Protocol):
    """The workers of a run. A context manager: none is left when the block ends."""

    def __enter__(self) -> Team: ...

    def __exit__(self, *_: object) -> None: ...

    def check(self) -> bool:
        """Whether any still works; called twice a second."""
        ...


class BulkRun:
    """Makes the pictures of a plan in a folder, with the queue of `jobs` there.

    workers  of the order of each one what differs from the usual; `folder`, `database` and `name` are filled in
    tar      requests a tar file, 0 for files in folders
    team     what the workers are, from their orders; None is processes of this machine
    """

    def __init__(
        self,
        folder: Path,
        plan: BulkPlan,
        *,
        workers: Sequence[Mapping[str, Any]] = ({},),
        tar: int = 0,
        team: Callable[[Sequence[WorkOrder], Leases], Team] | None = None,
    ) -> None:
        self.plan, self.workers, self.team = plan, workers, Processes if team is None else team
        shard = plan.shard
        own = folder if shard.parts == 1 else folder / f"shard-{shard.number}-of-{shard.parts}"
        self.folder = DataFolder(own)
        self.folder.lock()
        self.database = Database(sqlite_url(self.folder.path / "jobs.db"))
        self.store, self.settings = JobStore(self.database), StoredSettings(self.database)
        self.leases = Leases(self.store)
        self.output = BulkOutput(self.store, self.folder.path, tar)
        self.twins = 0

    def run(self) -> Generator[BulkStatus, None, None]:
        """Plans, works, and writes the manifest; yields states. Closing it stops the workers, and keeps what is done.

        InvalidRequest where a line is wrong, StableDiffusionError where the disk is full.
        """
        try:
            self._prepare()
            began = packed = time.monotonic()
            before = self._pictures()
            orders = [WorkOrder(**self._order(index, each)) for index, each in enumerate(self.workers)]
            complete = False
            try:
                yield self._status(before, began)
                with self.team(orders[: max(1, self._waiting())], self.leases) as team:
                    while self._waiting() and team.check():
                        time.sleep(LOOK)
                        yield self._status(before, began)
                        if self.output.tar and time.monotonic() - packed > PACK_EVERY:
                            self.output.pack(over=False)
                            packed = time.monotonic()
                complete = not self._waiting()
            finally:
                self.output.finish(over=complete)
            if (reason := self.settings.get(STOPPED)) is not None:
                raise StableDiffusionError(f"{reason}; make room and give the same command again")
            yield self._status(before, began)
        finally:
            self.database.close()
            self.folder.unlock()

    def _prepare(self) -> None:
        self.folder.remove_parts()
        self.settings.set(STOPPED, None)
        self.leases.recover(everything=True, forgive=True)
        stopped = [job.id for job in self.store.jobs(states=("failed",), limit=1000) if _is_of_disk(job.error)]
        self.store.retry(stopped)
        planned = self.settings.get(PLANNED)
        if planned is None or not self.plan.key or planned["key"] != self.plan.key:
            planner = Planner(
                self.store, Inputs(self.database, self.folder.inputs), self.plan.shard, self.folder.path / TWINS
            )
            twins = planner.plan(requests_of(self.plan.lines(), self.plan.base, self.plan.axes))
            planned = {"key": self.plan.key, "twins": twins}
            self.settings.set(PLANNED, planned)
        self.twins = planned["twins"]

    def _order(self, index: int, given: Mapping[str, Any]) -> dict[str, Any]:
        found = {"folder": str(self.folder.path), "database": self.database.url, "name": f"{os.getpid()}-{index}"}
        return {**found, **given}

    def _waiting(self) -> int:
        counts = self.store.counts()
        if self.settings.get(STOPPED) is not None:
            return 0
        return counts.get("queued", 0) + counts.get("running", 0)

    def _pictures(self) -> int:
        sa = sqlalchemy()
        with self.database.read() as connection:
            found: int = connection.execute(sa.select(sa.func.count()).select_from(self.database.pictures)).scalar_one()
        return found

    def _status(self, before: int, began: float) -> BulkStatus:
        sa, jobs = sqlalchemy(), self.database.jobs
        counts = self.store.counts()
        with self.database.read() as connection:
            total = connection.execute(sa.select(sa.func.coalesce(sa.func.sum(jobs.c.count), 0))).scalar_one()
        return BulkStatus(
            done=self._pictures(),
            total=int(total),
            failed=counts.get("failed", 0) + counts.get("lost", 0),
            before=before,
            twins=self.twins,
            seconds=time.monotonic() - began,
        )


def plan_key(*parts: object) -> str:
    """A hash of what makes a plan: options, and of a file its name, size and time of its last change."""
    said = [
        [str(part.resolve()), part.stat().st_size, part.stat().st_mtime_ns] if isinstance(part, Path) else part
        for part in parts
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _is_of_disk(error: str | None) -> bool:
    return error is not None and "could not be written" in error


def check_folder(folder: Path) -> None:
    """InvalidRequest where the folder of the pictures is a file."""
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"{str(folder)!r} is a file; expected a folder for the pictures")
