"""Who runs which job: claimed by one worker, kept by a heartbeat, ended once, and taken back from the dead."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .database import dumps, sqlalchemy
from .records import Job, State
from .store import JobStore, job_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOST = "the program ended {} times while it worked on this job, so it is not tried again; a smaller picture may help"


class Leases:
    """Claims of workers on the jobs of a store. A job that is ended by a worker which lost it stays as it is."""

    def __init__(self, store: JobStore) -> None:
        self.store, self.database, self.limits = store, store.database, store.limits

    def claim(self, worker: str, loaded: str | None = None) -> Job | None:
        """The next job, from now on of this worker; None where nothing waits.

        Owners take turns, the one that was served longest ago first; then comes priority, then age. A job of the
        `loaded` model goes first within the bounds of `Limits.window` and `Limits.ahead`.
        """
        sa, jobs, owners = sqlalchemy(), self.database.jobs, self.database.owners
        now, queued = time.time(), jobs.c.state == "queued"
        waits = sa.exists().where(jobs.c.owner == owners.c.owner, queued)
        turn = sa.select(owners.c.owner).where(waits).order_by(owners.c.served, owners.c.owner).limit(1)
        line = sa.select(jobs.c.id).where(queued, jobs.c.owner == turn.scalar_subquery())
        order: list[Any] = [jobs.c.priority.desc(), jobs.c.seq]
        window = line.order_by(*order).limit(self.limits.window if loaded is not None else 1).subquery()
        if loaded is not None:
            late = sa.func.coalesce(jobs.c.passed, now) < now - self.limits.ahead
            order = [sa.case((late, 0), (jobs.c.model == loaded, 1), else_=2), *order]
        first = sa.select(jobs.c.id).where(jobs.c.id.in_(sa.select(window.c.id)), queued).order_by(*order).limit(1)
        if self.database.is_postgresql:
            first = first.with_for_update(skip_locked=True)
        mine = {"state": "running", "attempts": jobs.c.attempts + 1, "worker": worker, "started": now}
        mine |= {"lease": now + self.limits.lease, "finished": None, "error": None}
        update = sa.update(jobs).where(jobs.c.id == first.scalar_subquery(), queued).values(**mine).returning(jobs)
        with self.database.write() as connection:
            row = connection.execute(update).one_or_none()
            if row is None:
                return None
            connection.execute(sa.update(owners).where(owners.c.owner == row.owner).values(served=now))
            if loaded is not None:
                self._note_passed(connection, row, now)
            return job_of(row)

    def heartbeat(self, worker: str, job_ids: Sequence[str]) -> dict[str, bool]:
        """Keeps the worker's jobs its own; says of each that it still has whether someone asked for its end."""
        sa, jobs = sqlalchemy(), self.database.jobs
        mine = jobs.c.id.in_(list(job_ids)) & (jobs.c.worker == worker) & (jobs.c.state == "running")
        kept = sa.update(jobs).where(mine).values(lease=time.time() + self.limits.lease)
        with self.database.write() as connection:
            return {row.id: bool(row.cancel) for row in connection.execute(kept.returning(jobs.c.id, jobs.c.cancel))}

    def end(
        self, job: Job, state: State, *, error: str | None = None, notes: Sequence[str] = (), rows: Sequence[Any] = ()
    ) -> bool:
        """Ends a claimed job, and writes the rows of its last pictures in the same commit.

        False, and nothing is written, where the job is no longer this worker's: the claim is known by its attempt.
        """
        sa, jobs = sqlalchemy(), self.database.jobs
        values = {"state": state, "error": error, "notes": dumps(list(notes)), "finished": time.time(), "lease": None}
        with self.database.write() as connection:
            update = sa.update(jobs).where(self._claimed(job)).values(**values)
            if connection.execute(update).rowcount != 1:
                return False
            self._add(connection, rows)
        return True

    def keep(self, job: Job, rows: Sequence[Any]) -> bool:
        """Writes rows of pictures while the job goes on; False where it is no longer this worker's."""
        sa, jobs = sqlalchemy(), self.database.jobs
        with self.database.write() as connection:
            kept = sa.update(jobs).where(self._claimed(job)).values(lease=time.time() + self.limits.lease)
            if connection.execute(kept).rowcount != 1:
                return False
            self._add(connection, rows)
        return True

    def give_back(self, job: Job) -> None:
        """A job that was claimed and not begun, or stopped by the end of the program, waits again; not an attempt."""
        sa, jobs = sqlalchemy(), self.database.jobs
        values = {"state": "queued", "worker": None, "lease": None, "attempts": jobs.c.attempts - 1}
        with self.database.write() as connection:
            connection.execute(sa.update(jobs).where(self._claimed(job)).values(**values))

    def recover(
        self, *, everything: bool = False, worker: str | None = None, forgive: bool = False
    ) -> tuple[list[str], list[str]]:
        """Takes jobs back from dead workers: those whose lease is over, or `everything` that runs at a start.

        worker    one that is known to be dead, whose jobs alone are taken
        forgive   what was cut off is not an attempt, for it was not the job's fault

        Returns the ids of those that wait again and of those that are lost, having been started too often.
        """
        sa, jobs, now = sqlalchemy(), self.database.jobs, time.time()
        dead = jobs.c.state == "running"
        if worker is not None:
            dead = dead & (jobs.c.worker == worker)
        elif not everything:
            dead = dead & (sa.func.coalesce(jobs.c.lease, 0.0) < now)
        asked = {"state": "cancelled", "worker": None, "lease": None, "finished": now}
        lost = {"state": "lost", "error": LOST.format(self.limits.attempts), "finished": now, "lease": None}
        again = {"state": "queued", "worker": None, "lease": None, "attempts": jobs.c.attempts - int(forgive)}
        with self.database.write() as connection:
            connection.execute(sa.update(jobs).where(dead, jobs.c.cancel == 1).values(**asked))
            most = self.limits.attempts + int(forgive)
            often = sa.update(jobs).where(dead, jobs.c.attempts >= most)
            gone = [row.id for row in connection.execute(often.values(**lost).returning(jobs.c.id))]
            back = sa.update(jobs).where(dead).values(**again).returning(jobs.c.id)
            return [row.id for row in connection.execute(back)], gone

    def _claimed(self, job: Job) -> Any:
        jobs = self.database.jobs
        same = (jobs.c.worker == job.worker) & (jobs.c.attempts == job.attempts)
        return (jobs.c.id == job.id) & (jobs.c.state == "running") & same

    def _add(self, connection: Connection, rows: Sequence[Any]) -> None:
        """Rows of pictures; one that is there already, of an attempt that was cut off, is replaced."""
        sa, pictures = sqlalchemy(), self.database.pictures
        for row in rows:
            connection.execute(sa.delete(pictures).where(pictures.c.id == row["id"]))
            connection.execute(sa.insert(pictures).values(**row))

    def _note_passed(self, connection: Connection, claimed: Any, now: float) -> None:
        """Remembers since when the owner's first job is overtaken."""
        sa, jobs = sqlalchemy(), self.database.jobs
        line = sa.select(jobs.c.id, jobs.c.priority, jobs.c.seq, jobs.c.passed)
        line = line.where(jobs.c.state == "queued", jobs.c.owner == claimed.owner)
        first = connection.execute(line.order_by(jobs.c.priority.desc(), jobs.c.seq).limit(1)).one_or_none()
        if (
            first is not None
            and first.passed is None
            and (-first.priority, first.seq)
            < (
                -claimed.priority,
                claimed.seq,
            )
        ):
            connection.execute(sa.update(jobs).where(jobs.c.id == first.id).values(passed=now))
