"""Requests on a pool of replicas, tried again where a replica dies: none is lost, and no picture comes twice."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

from ..errors import InvalidRequest, StableDiffusionError, what_is
from ..events import Event, Images, Progress
from ..jobs.inputs import tail, with_seeds
from ..request.request import Request
from .pool import Member, ReplicaDied, ReplicaPool
from .replica import Failure
from .shared_files import SharedFiles, SharedRequest, with_own_paths

PATIENCE = 0.5
"""Seconds for which a run waits for a replica before it says again how far it is."""


class ClusterRunner:
    """A runner whose requests run on replicas of a pool. May be used by several threads.

    files   puts the files of requests into a store; None where every machine has them under the same paths
    """

    def __init__(self, pool: ReplicaPool, files: SharedFiles | None = None) -> None:
        self.pool, self.files = pool, files

    def run(self, request: Request, *, wants_preview: Callable[[], bool] | None = None) -> Iterator[Event]:
        """The events of a request, as `Runner.run` has them; closing the iterator ends the work at the next step.

        While the run waits for a replica, its last `Progress` comes again every half second, so that whoever wants to
        end it can. StableDiffusionError where replicas die `attempts` times on this request.
        """
        if not isinstance(request, Request):
            raise InvalidRequest(f"the request is {what_is(request)}; expected a Request")
        return self._run(with_seeds(request), wants_preview or (lambda: False))

    def release(self) -> None:
        """Nothing: each replica gives its own models back."""

    def _run(self, request: Request, wants_preview: Callable[[], bool]) -> Iterator[Event]:
        done, died = 0, 0
        last = Progress(index=0, total=1, sigma=0.0, picture=0, pictures=request.count)
        while done < request.count:
            member = yield from self._member(request.model, last)
            first, is_over, events = done, False, self._events(member, tail(request, done), wants_preview)
            try:
                for event in events:
                    if isinstance(event, Images):
                        event = replace(event, first=event.first + first)
                        done = event.first + len(event.images)
                    else:
                        event = replace(event, picture=event.picture + first, pictures=request.count)
                        last = replace(event, preview=None)
                    yield event
                is_over = True
            except ReplicaDied:
                self.pool.give(member, dead=True)
                died += 1
                if died >= self.pool.settings.attempts:
                    raise StableDiffusionError(
                        f"{died} replicas of the cluster died while they worked on this request, so it is not tried "
                        "again; a smaller picture may help"
                    ) from None
                continue
            except BaseException:  # an error of the request, or whoever asked has left
                events.close()
                self.pool.give(member)
                raise
            self.pool.give(member)
            if is_over and done == first:  # a request without pictures
                return

    def _member(self, model: str | None, last: Progress) -> Generator[Event, None, Member]:
        """A replica for a run, waited for."""
        ticket = self.pool.queue()
        try:
            while True:
                member = self.pool.take(ticket, model, PATIENCE)
                if member is not None:
                    return member
                yield last
        finally:
            self.pool.leave(ticket)

    def _events(
        self, member: Member, request: Request, wants_preview: Callable[[], bool]
    ) -> Generator[Event, None, None]:
        """The events of one attempt. ReplicaDied where the replica does; the error of the request where it has one."""
        handle, run_id, is_over = member.handle, secrets.token_hex(8), False
        asked: Request | SharedRequest = request if self.files is None else self.files.shared(request)
        try:
            if wants_preview():
                handle.want_preview(run_id)
            for event in handle.run(run_id, asked):
                if isinstance(event, Failure):
                    is_over = True
                    raise event.error
                if isinstance(event, Progress) and wants_preview():
                    handle.want_preview(run_id)
                yield with_own_paths(event, request) if isinstance(asked, SharedRequest) else event
            is_over = True
        except ReplicaDied:
            is_over = True
            raise
        finally:
            if not is_over:
                handle.stop(run_id)
