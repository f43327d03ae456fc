"""The jobs as rows: submitted, listed, cancelled, moved, pruned. Who runs them is in `lease.py`."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .database import Database, dumps, sqlalchemy
from .errors import DifferentBody, JobFinished, PrunedJob, QueueFull, UnknownJob
from .records import FINISHED, Job, Limits, State

if TYPE_CHECKING:
    from sqlalchemy import Connection

PRUNED_IDS = 100_000
"""Ids of removed jobs that are remembered, so that asking for one says that it is gone."""
SECONDS_A_JOB = 5.0
"""What a job is taken to need while nothing is known, for `retry_after`."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job to be: what `JobStore.submit` writes. `body` is JSON, `hashes` the inputs that it names."""

    body: Mapping[str, Any]
    request_hash: str
    owner: str
    kind: str = "generate"
    priority: int = 0
    idempotency: str | None = None
    model: str = ""
    engine: str = ""
    needs: str = ""
    count: int = 1
    saved: bool = True
    label: str = ""
    hashes: tuple[str, ...] = ()


class JobStore:
    """The queue in the database. Safe for several threads and processes."""

    def __init__(self, database: Database, limits: Limits | None = None) -> None:
        self.database, self.limits = database, Limits() if limits is None else limits
        self._lock, self._last = threading.Lock(), 0

    def submit(self, asked: Submission, *, bounded: bool = True) -> tuple[Job, bool]:
        """The new job and True; or the one that was submitted with this idempotency key before, and False.

        QueueFull where `bounded` and the queue or the owner's share is full; DifferentBody where the key belongs to
        another request.
        """
        with self.database.write() as connection:
            found = self._same_key(connection, asked)
            if found is not None:
                return found, False
            if bounded:
                self._check_room(connection, asked.owner)
            return self._insert(connection, [asked])[0], True

    def submit_all(self, asked: Sequence[Submission]) -> int:
        """Adds the jobs whose idempotency keys are new, in one transaction and without bounds; returns how many."""
        sa, jobs = sqlalchemy(), self.database.jobs
        with self.database.write() as connection:
            known: set[tuple[str, str]] = set()
            for start in range(0, len(asked), 500):
                keys = [each.idempotency for each in asked[start : start + 500] if each.idempotency is not None]
                query = sa.select(jobs.c.owner, jobs.c.idempotency).where(jobs.c.idempotency.in_(keys))
                known |= {(row.owner, row.idempotency) for row in connection.execute(query)}
            fresh = [each for each in asked if (each.owner, each.idempotency) not in known]
            if fresh:
                self._insert(connection, fresh)
        return len(fresh)

    def job(self, job_id: str) -> Job:
        """The job with this id; PrunedJob or UnknownJob where there is none."""
        sa, jobs, pruned = sqlalchemy(), self.database.jobs, self.database.pruned
        with self.database.read() as connection:
            row = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one_or_none()
            if row is not None:
                return job_of(row)
            gone = connection.execute(sa.select(pruned.c.at).where(pruned.c.id == job_id)).scalar()
        if gone is not None:
            raise PrunedJob(f"the job {str(job_id)[:80]!r} ended long ago and was removed from the list")
        raise UnknownJob(f"there is no job {str(job_id)[:80]!r}")

    def jobs(
        self,
        *,
        owner: str | None = None,
        states: Iterable[State] = (),
        limit: int = 50,
        before: int | None = None,
        oldest_first: bool = False,
    ) -> list[Job]:
        """Jobs, the newest first; `before` is the `seq` of the last one of the page before."""
        sa, jobs, states = sqlalchemy(), self.database.jobs, tuple(states)
        query = sa.select(jobs)
        query = query if owner is None else query.where(jobs.c.owner == owner)
        query = query.where(jobs.c.state.in_(states)) if states else query
        if before is not None:
            query = query.where(jobs.c.seq > before if oldest_first else jobs.c.seq < before)
        query = query.order_by(jobs.c.seq if oldest_first else jobs.c.seq.desc()).limit(limit)
        with self.database.read() as connection:
            return [job_of(row) for row in connection.execute(query)]

    def unfinished(self, owner: str, request_hash: str) -> Job | None:
        """The newest job of an owner that waits or runs for a request with this hash."""
        sa, jobs = sqlalchemy(), self.database.jobs
        query = sa.select(jobs).where(jobs.c.owner == owner, jobs.c.request_hash == request_hash)
        query = query.where(jobs.c.state.in_(("queued", "running")), jobs.c.cancel == 0)
        with self.database.read() as connection:
            row = connection.execute(query.order_by(jobs.c.seq.desc()).limit(1)).one_or_none()
        return None if row is None else job_of(row)

    def counts(self, owner: str | None = None) -> dict[State, int]:
        """How many jobs are in each state."""
        sa, jobs = sqlalchemy(), self.database.jobs
        query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
        query = query if owner is None else query.where(jobs.c.owner == owner)
        with self.database.read() as connection:
            return {state: count for state, count in connection.execute(query)}

    def total(self) -> int:
        """How many jobs there are."""
        return sum(self.counts().values())

    def line(self, most: int = 10_000) -> list[Job]:
        """Queued jobs in the order in which they are expected to run: owners in turn, then priority, then age."""
        sa, jobs, owners = sqlalchemy(), self.database.jobs, self.database.owners
        query = sa.select(jobs).where(jobs.c.state == "queued").order_by(jobs.c.priority.desc(), jobs.c.seq)
        with self.database.read() as connection:
            queued = [job_of(row) for row in connection.execute(query.limit(most))]
            served = dict(connection.execute(sa.select(owners.c.owner, owners.c.served)).tuples().all())
        lines: dict[str, list[Job]] = {}
        for job in queued:
            lines.setdefault(job.owner, []).append(job)
        turns = sorted(lines, key=lambda owner: (served.get(owner, 0.0), owner))
        found: list[Job] = []
        for round_ in range(max(map(len, lines.values()), default=0)):
            found += [lines[owner][round_] for owner in turns if round_ < len(lines[owner])]
        return found

    def cancel(self, job_id: str) -> Job:
        """A queued job is cancelled here; a running one is asked to end at its next step. JobFinished otherwise."""
        sa, jobs = sqlalchemy(), self.database.jobs
        with self.database.write() as connection:
            ended = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state == "queued")
            asked = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state == "running").values(cancel=1)
            done = connection.execute(ended.values(state="cancelled", cancel=1, finished=time.time())).rowcount
            done += connection.execute(asked).rowcount
        job = self.job(job_id)
        if not done:
            raise JobFinished(f"the job {job_id!r} is {job.state} already")
        return job

    def clear(self, owner: str | None = None) -> list[str]:
        """Cancels every queued job, or those of one owner; the running ones go on. Returns their ids."""
        sa, jobs = sqlalchemy(), self.database.jobs
        ended = sa.update(jobs).where(jobs.c.state == "queued")
        ended = ended if owner is None else ended.where(jobs.c.owner == owner)
        with self.database.write() as connection:
            done = ended.values(state="cancelled", cancel=1, finished=time.time()).returning(jobs.c.id)
            return [row.id for row in connection.execute(done)]

    def reorder(self, job_ids: Sequence[str]) -> None:
        """Queued jobs take each other's places so that they run in this order; those that run by now are left out.

        Each keeps its owner's turn; all of them get the highest priority among them.
        """
        sa, jobs = sqlalchemy(), self.database.jobs
        with self.database.write() as connection:
            query = sa.select(jobs.c.id, jobs.c.seq, jobs.c.priority)
            rows = connection.execute(query.where(jobs.c.id.in_(list(job_ids)), jobs.c.state == "queued")).all()
            known, places = {row.id for row in rows}, sorted(row.seq for row in rows)
            highest = max((row.priority for row in rows), default=0)
            order = [each for each in dict.fromkeys(job_ids) if each in known]
            for job_id, seq in zip(order, places, strict=True):
                here = sa.update(jobs).where(jobs.c.id == job_id)
                connection.execute(here.values(seq=seq, priority=highest))

    def to_front(self, job_id: str) -> None:
        """A queued job becomes the next of its owner."""
        sa, jobs = sqlalchemy(), self.database.jobs
        with self.database.write() as connection:
            queued = jobs.c.state == "queued"
            first, highest = connection.execute(
                sa.select(sa.func.min(jobs.c.seq), sa.func.max(jobs.c.priority)).where(queued)
            ).one()
            here = sa.update(jobs).where(jobs.c.id == job_id, queued)
            if first is not None:
                connection.execute(here.values(seq=first - 1, priority=highest))

    def retry(self, job_ids: Iterable[str]) -> list[str]:
        """Failed, lost and cancelled jobs are queued once more, as if new; returns the ids of those."""
        sa, jobs = sqlalchemy(), self.database.jobs
        found: list[str] = []
        with self.database.write() as connection:
            for job_id in job_ids:
                again = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(("failed", "lost", "cancelled")))
                fresh = {"state": "queued", "attempts": 0, "cancel": 0, "seq": self._next(), "worker": None}
                fresh |= {"error": None, "notes": None, "started": None, "finished": None, "passed": None}
                found += [row.id for row in connection.execute(again.values(**fresh).returning(jobs.c.id))]
        return found

    def delete(self, job_id: str) -> None:
        """Removes an ended job from the list; its pictures stay. One that has not ended stays too."""
        sa, jobs = sqlalchemy(), self.database.jobs
        with self.database.write() as connection:
            ended = (jobs.c.id == job_id) & jobs.c.state.in_(FINISHED)
            self._remove(connection, [row.id for row in connection.execute(sa.select(jobs.c.id).where(ended))])

    def prune(self) -> int:
        """Removes the oldest ended jobs beyond `Limits.kept`; returns how many."""
        sa, jobs = sqlalchemy(), self.database.jobs
        ended = sa.select(jobs.c.id).where(jobs.c.state.in_(FINISHED)).order_by(jobs.c.finished.desc())
        with self.database.write() as connection:
            old = [row.id for row in connection.execute(ended.offset(self.limits.kept))]
            self._remove(connection, old)
            self._forget(connection)
        return len(old)

    def _remove(self, connection: Connection, ids: Sequence[str]) -> None:
        sa, database = sqlalchemy(), self.database
        for start in range(0, len(ids), 500):
            some = list(ids[start : start + 500])
            connection.execute(sa.delete(database.job_inputs).where(database.job_inputs.c.job.in_(some)))
            connection.execute(sa.delete(database.jobs).where(database.jobs.c.id.in_(some)))
            gone = [{"id": each, "at": time.time()} for each in some]
            connection.execute(sa.insert(database.pruned), gone)

    def _forget(self, connection: Connection) -> None:
        """Old ids of removed jobs, and owners that have none, go for good."""
        sa, pruned, owners, jobs = sqlalchemy(), self.database.pruned, self.database.owners, self.database.jobs
        last = sa.select(pruned.c.at).order_by(pruned.c.at.desc()).offset(PRUNED_IDS).limit(1).scalar_subquery()
        connection.execute(sa.delete(pruned).where(pruned.c.at <= last))
        connection.execute(sa.delete(owners).where(owners.c.owner.not_in(sa.select(jobs.c.owner))))

    def _same_key(self, connection: Connection, asked: Submission) -> Job | None:
        if asked.idempotency is None:
            return None
        sa, jobs = sqlalchemy(), self.database.jobs
        query = sa.select(jobs).where(jobs.c.owner == asked.owner, jobs.c.idempotency == asked.idempotency)
        row = connection.execute(query).one_or_none()
        if row is not None and row.request_hash != asked.request_hash:
            raise DifferentBody("this idempotency key was used for another request; use a new key for a new request")
        return None if row is None else job_of(row)

    def _check_room(self, connection: Connection, owner: str) -> None:
        sa, jobs = sqlalchemy(), self.database.jobs
        waiting = sa.select(sa.func.count()).where(jobs.c.state == "queued")
        full = connection.execute(waiting).scalar_one()
        own = connection.execute(waiting.where(jobs.c.owner == owner)).scalar_one()
        if full < self.limits.queue and own < self.limits.owner:
            return
        if full >= self.limits.queue:
            sentence = f"the queue is full: {full} jobs wait, and at most {self.limits.queue} may"
        else:
            sentence = f"{own} jobs of yours wait, and at most {self.limits.owner} may"
        raise QueueFull(f"{sentence}; try again later", self._retry_after(connection))

    def _retry_after(self, connection: Connection) -> int:
        """Seconds until a place is free: as long as the last jobs took, on average."""
        sa, jobs = sqlalchemy(), self.database.jobs
        last = sa.select(jobs.c.started, jobs.c.finished).where(jobs.c.state == "done")
        rows = connection.execute(last.order_by(jobs.c.finished.desc()).limit(8)).all()
        took = [row.finished - row.started for row in rows if row.started is not None]
        return max(1, round(sum(took) / len(took) if took else SECONDS_A_JOB))

    def _next(self) -> int:
        """A number that grows, also over restarts: microseconds since 1970, or one more than the last."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last

    def _insert(self, connection: Connection, asked: Sequence[Submission]) -> list[Job]:
        sa, database, rows, inputs, now = sqlalchemy(), self.database, [], [], time.time()
        for each in asked:
            row = {name: getattr(each, name) for name in ("owner", "kind", "priority", "idempotency", "request_hash")}
            row |= {name: getattr(each, name) for name in ("model", "engine", "needs", "count", "label")}
            row |= {"id": secrets.token_hex(8), "seq": self._next(), "state": "queued", "saved": int(each.saved)}
            rows.append(row | {"request": dumps(each.body), "attempts": 0, "cancel": 0, "created": now})
            inputs += [{"job": row["id"], "hash": found} for found in dict.fromkeys(each.hashes)]
        connection.execute(sa.insert(database.jobs), rows)
        if inputs:
            connection.execute(sa.insert(database.job_inputs), inputs)
        for owner in {each.owner for each in asked}:
            known = sa.select(database.owners.c.owner).where(database.owners.c.owner == owner)
            if connection.execute(known).first() is None:
                insert = _insert_once(database)
                connection.execute(insert.values(owner=owner, served=0.0).on_conflict_do_nothing())
        query = sa.select(database.jobs).where(database.jobs.c.id == rows[0]["id"])
        return [job_of(connection.execute(query).one())]


def _insert_once(database: Database) -> Any:
    """An INSERT into `owners` that may meet another one of the same row."""
    if database.is_postgresql:
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(database.owners)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(database.owners)


def job_of(row: Any) -> Job:
    """A row as a Job."""
    values = {name: getattr(row, name) for name in _SAME}
    notes = tuple(json.loads(row.notes)) if row.notes else ()
    body = json.loads(row.request)
    return Job(body=body, saved=bool(row.saved), cancel=bool(row.cancel), notes=notes, **values)


_SAME = (
    *("id", "seq", "owner", "kind", "state", "priority", "request_hash", "idempotency", "model", "engine", "needs"),
    *("label", "count", "attempts", "worker", "error", "created", "started", "finished"),
)
