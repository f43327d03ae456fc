"""The line of calls that wait for a network, and which of them are computed next, by which thread."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.sharing import origin
from ..base import Network
from .cap import Pays
from .mode import ShareMode
from .rows import CallRows, Shape

WINDOW = 0.3
"""How long runs are waited for after a call, as a share of the time that it took."""
LEAST_WINDOW, MOST_WINDOW = 0.001, 0.02
"""The same in seconds, at least and at most."""
WIDE = 0
"""The lane whose operators use all of torch's threads; those of the lanes after it use one."""


@dataclass(eq=False)
class Waiting:
    """A call that waits for its answer.

    module   the network that computes it, of those with equal weights the same object
    rows     None for a call that is computed as it is, by itself
    run      which run's it is, by the thread that the run goes on in: two calls of one are never in the line at once
    """

    module: nn.Module
    network: Network
    arguments: Sequence[Any]
    named: dict[str, Any]
    rows: CallRows | None
    run: int = field(default_factory=threading.get_ident)
    inference: bool = field(default_factory=torch.is_inference_mode_enabled)
    answer: Future[Any] = field(default_factory=Future)
    taken: int = 0
    parts: dict[int, Tensor] = field(default_factory=dict)
    shape: Shape = ()

    def __post_init__(self) -> None:
        self.shape = () if self.rows is None else self.rows.shape

    @property
    def group(self) -> Hashable:
        """Calls of one group may be joined."""
        return (id(self.module), self.shape, self.inference)

    @property
    def left(self) -> int:
        """Rows that nobody computes yet."""
        return 0 if self.rows is None else self.rows.count - self.taken

    @property
    def on_processor(self) -> bool:
        given = self.arguments[0] if self.arguments else None
        return not isinstance(given, Tensor) or given.device.type == "cpu"


@dataclass(frozen=True)
class Taken:
    """Rows of a waiting call that are computed now; none where it is computed as it is, or measured."""

    call: Waiting
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Expected:
    """A run that has its answer and will soon be back: until when that is believed, and with how many rows."""

    group: Hashable
    until: float
    rows: int


class Line:
    """Calls by age, runs that are expected back, and what each lane computes. Whoever uses it holds a lock.

    Lane 0 (`WIDE`) computes with all threads; each of the lanes from 1 to `lanes` with one. Nothing runs beside the
    wide lane. On a processor calls of a fixed number of rows go to the others, so that bits depend on no number of
    threads; of other calls those go there that gain by it, while there is more than one run.
    """

    def __init__(self, mode: ShareMode, lanes: int) -> None:
        self.mode, self.lanes = mode, lanes
        self.waiting: list[Waiting] = []
        self.busy: dict[int, Sequence[Taken]] = {}
        self.apart = False
        """Whether any network that was measured gains by lanes."""
        self._expected: dict[int, Expected] = {}
        self._limits: weakref.WeakKeyDictionary[nn.Module, dict[Shape, Pays]] = weakref.WeakKeyDictionary()

    def add(self, call: Waiting) -> None:
        self._expected.pop(call.run, None)
        self.waiting.append(call)

    def lanes_for(self, call: Waiting) -> Sequence[int]:
        """The lanes that may compute it."""
        narrow = range(1, self.lanes + 1)
        if self.mode.kind == "fixed":
            return narrow if call.on_processor else (WIDE,)
        return (WIDE, *narrow) if self.apart and call.on_processor else (WIDE,)

    def limit(self, call: Waiting) -> Pays | None:
        """What pays for a network and rows of a shape; None before it was measured."""
        return self._limits.get(origin(call.module), {}).get(call.shape)

    def set_limit(self, call: Waiting, found: Pays) -> None:
        self._limits.setdefault(origin(call.module), {})[call.shape] = found
        self.apart = self.apart or found.apart

    def take(self, lane: int) -> Sequence[Taken]:
        """What a lane computes next: of the first group, by age, that is full or expects nobody. Nothing where all
        still wait, or other lanes are to end first."""
        if self._is_held_up(lane):
            return ()
        groups: dict[Hashable, list[Waiting]] = {}
        for call in self.waiting:
            groups.setdefault(call.group, []).append(call)
        for calls in groups.values():
            if batch := self._batch(lane, calls):
                self.busy[lane] = batch
                return batch
        return ()

    def finished(self, lane: int, seconds: float) -> None:
        """A lane's calls have their answers; their runs are expected back."""
        until = time.monotonic() + min(max(WINDOW * seconds, LEAST_WINDOW), MOST_WINDOW)
        here = {call.run for call in self.waiting}  # back already, or with more rows than went in
        for taken in self.busy.pop(lane):
            call = taken.call
            if taken.last and call.run not in here:
                self._expected[call.run] = Expected(call.group, until, taken.last - taken.first)

    def next_change(self) -> float | None:
        """When the first of the expected runs is no longer waited for."""
        now = time.monotonic()
        self._expected = {run: each for run, each in self._expected.items() if each.until > now}
        return min((each.until for each in self._expected.values()), default=None)

    def _is_held_up(self, lane: int) -> bool:
        if lane == WIDE:
            return bool(self.busy)
        return WIDE in self.busy or any(self._lane_kind(call) == WIDE for call in self.waiting if self._unknown(call))

    def _unknown(self, call: Waiting) -> bool:
        return call.rows is not None and self.limit(call) is None

    def _lane_kind(self, call: Waiting) -> int:
        """`WIDE`, or 1 for any of the others."""
        if not call.on_processor:
            return WIDE
        if self.mode.kind == "fixed":
            return 1
        limit = self.limit(call)
        apart = limit.apart if limit is not None else self.apart and call.rows is None
        return 1 if apart and self.runs() > 1 else WIDE

    def runs(self) -> int:
        """Runs that are here, are computed, or are expected."""
        now = time.monotonic()
        known = {call.run for call in self.waiting} | {run for run, each in self._expected.items() if each.until > now}
        return len(known | {taken.call.run for batch in self.busy.values() for taken in batch})

    def _batch(self, lane: int, calls: Sequence[Waiting]) -> Sequence[Taken]:
        first = calls[0]
        if min(lane, 1) != self._lane_kind(first):
            return ()
        if first.rows is None:
            self.waiting.remove(first)
            return (Taken(first),)
        limit = self.limit(first)
        if limit is None:  # to be measured; it stays in the line
            busy = {taken.call.group for batch in self.busy.values() for taken in batch}
            return () if first.group in busy else (Taken(first),)
        most = limit.rows if self.mode.kind == "fixed" or lane == WIDE else min(limit.rows, self._share(calls))
        if sum(call.left for call in calls) >= most or not self._expects(first.group):
            return self._taken(calls, most)
        return ()

    def _share(self, calls: Sequence[Waiting]) -> int:
        """Rows of a group for each lane, as whole calls."""
        group, here = calls[0].group, sum(call.left for call in calls)
        here += sum(each.rows for each in self._expected.values() if each.group == group)
        elsewhere = [taken for batch in self.busy.values() for taken in batch if taken.call.group == group]
        here += sum(taken.last - taken.first for taken in elsewhere)
        one = max(calls[0].left, 1)
        return -(-here // (self.lanes * one)) * one

    def _taken(self, calls: Sequence[Waiting], most: int) -> Sequence[Taken]:
        """The first calls with `most` rows together. With a fixed number a call may be parted; else it stays whole."""
        batch: list[Taken] = []
        room = most
        for call in calls:
            left = call.left
            if self.mode.kind == "fixed":
                left = min(left, room)
            elif left > room and batch:
                break
            batch.append(Taken(call, call.taken, call.taken + left))
            call.taken += left
            room -= left
            if not call.left:
                self.waiting.remove(call)
            if room <= 0:
                break
        return batch

    def _expects(self, group: Hashable) -> bool:
        now = time.monotonic()
        return any(each.group == group and each.until > now for each in self._expected.values())
