"""Where runs meet: calls of the network wait here for each other, and one thread computes them together.

Each run goes on in a thread of its own and calls its network as if it were alone. What arrives while the network
computes is the next call. After a call its runs are expected back for a moment (`WINDOW`), since their steps between
two calls are short; a run that ends, fails, is cancelled or skips a call is not waited for longer than that, so that
nobody can hold up the others.

There is one thread for all networks: two at once would only share the processor. Where calls have a fixed number of rows
there is one for each thread that torch has, and operators use one each: bits then depend on no number of threads.
"""

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
from ..memory import is_out_of_memory
from ..threads import keep_threads
from .cap import measured_cap, places_agree
from .mode import ShareMode
from .rows import CallRows, Shape

WINDOW = 0.3
"""How long runs are waited for after a call, as a share of the time that it took."""
LEAST_WINDOW, MOST_WINDOW = 0.001, 0.02
"""The same in seconds, at least and at most."""
IDLE = 2.0
"""Seconds without a call after which a thread ends; the next call starts another."""
MOST_LANES = 8
"""Threads at most that compute calls of a fixed number of rows."""


def lanes_of(mode: ShareMode) -> int:
    """Threads that compute calls at once."""
    return min(torch.get_num_threads(), MOST_LANES) if mode.kind == "fixed" else 1


@dataclass(eq=False)
class Waiting:
    """A call that waits for its answer.

    caller   the run, as far as it is known here: two calls of one run are never in the line at once
    module   the network that computes it, of those with equal weights the same object
    rows     None for a call that is computed as it is, by itself
    """

    caller: object
    module: nn.Module
    network: Network
    arguments: Sequence[Any]
    named: dict[str, Any]
    rows: CallRows | None
    threads: int = field(default_factory=torch.get_num_threads)
    inference: bool = field(default_factory=torch.is_inference_mode_enabled)
    answer: Future[Any] = field(default_factory=Future)
    taken: int = 0
    parts: dict[int, Tensor] = field(default_factory=dict)
    shape: Shape = ()

    def __post_init__(self) -> None:
        self.shape = () if self.rows is None else self.rows.shape

    @property
    def key(self) -> tuple[Shape, int]:
        """By which a network's measured number of rows is known."""
        return self.shape, self.threads

    @property
    def group(self) -> Hashable:
        """Calls of one group may be joined."""
        return (id(self.module), self.shape, self.threads, self.inference)


@dataclass(frozen=True)
class Taken:
    """Rows of a waiting call that are computed now."""

    call: Waiting
    first: int
    last: int


class Rendezvous:
    """The line of waiting calls, and the threads that compute them; `calls` and `rows` count what was computed.

    lanes   threads that compute at once: torch's number of threads where calls have a fixed number of rows, else one
    """

    def __init__(self, mode: ShareMode) -> None:
        self.mode = mode
        self.calls = self.rows = 0
        self.cap = mode.rows
        """Rows of a call that pay, as was last measured; 0 before."""
        self.lanes = lanes_of(mode)
        self._limits: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Shape, int], int]] = weakref.WeakKeyDictionary()
        self._line: list[Waiting] = []
        self._measured: list[Waiting] = []
        self._expected: dict[object, tuple[Hashable, float]] = {}
        self._changed = threading.Condition()
        self._threads = self._idle = 0

    def compute(self, call: Waiting) -> Any:
        """The answer to a call, when its turn has come; what the network raises is raised here."""
        with self._changed:
            self._expected.pop(call.caller, None)
            self._line.append(call)
            if not self._idle and self._threads < self.lanes:
                self._threads += 1
                threading.Thread(target=self._work, name="shared network calls", daemon=True).start()
            self._changed.notify_all()
        return call.answer.result()

    def _work(self) -> None:
        if self.mode.kind == "fixed":
            keep_threads(1)
        while (batch := self._wait()) is not None:
            self._compute(batch)

    def _wait(self) -> list[Taken] | None:
        """What this thread computes next; None where it ends."""
        with self._changed:
            until = time.monotonic() + IDLE
            while not (batch := self._next_batch()):
                now = time.monotonic()
                self._expected = {run: each for run, each in self._expected.items() if each[1] > now}
                if not self._line and until <= now:
                    self._threads -= 1
                    return None
                wake = min((end for _, end in self._expected.values()), default=until) if self._line else until
                self._idle += 1
                self._changed.wait(max(wake - now, LEAST_WINDOW))
                self._idle -= 1
            return batch

    # --- what is computed next; under the lock ------------------------------------------------------------------------

    def _next_batch(self) -> list[Taken]:
        """The calls of the first group, by age, that is full or expects nobody; [] where all groups still wait."""
        groups: dict[Hashable, list[Waiting]] = {}
        for call in self._line:
            groups.setdefault(call.group, []).append(call)
        now = time.monotonic()
        for group, calls in groups.items():
            if calls[0].rows is None:
                self._line.remove(calls[0])
                return [Taken(calls[0], 0, 0)]
            most = self._most_rows(calls[0])
            if not most:
                if not any(each.module is calls[0].module and each.key == calls[0].key for each in self._measured):
                    self._measured.append(calls[0])
                    return [Taken(calls[0], 0, 0)]  # to be measured; it stays in the line
                continue
            waiting = sum(call.rows.count - call.taken for call in calls if call.rows is not None)
            if waiting >= most or not self._expects(group, now):
                return self._taken(calls, most)
        return []

    def _taken(self, calls: Sequence[Waiting], most: int) -> list[Taken]:
        """The first calls with `most` rows together. With a fixed number a call may be parted; else it stays whole."""
        batch: list[Taken] = []
        room = most
        for call in calls:
            assert call.rows is not None
            left = call.rows.count - call.taken
            if self.mode.kind == "fixed":
                left = min(left, room)
            elif left > room and batch:
                break
            batch.append(Taken(call, call.taken, call.taken + left))
            call.taken += left
            room -= left
            if call.taken == call.rows.count:
                self._line.remove(call)
            if room <= 0:
                break
        return batch

    def _expects(self, group: Hashable, now: float) -> bool:
        return any(known == group and until > now for known, until in self._expected.values())

    def _most_rows(self, call: Waiting) -> int:
        """Of this network for rows of this shape; 0 before it was measured."""
        return self._limits.get(origin(call.module), {}).get(call.key, 0)

    # --- computing ----------------------------------------------------------------------------------------------------

    def _compute(self, batch: list[Taken]) -> None:
        first = batch[0].call
        if self.mode.kind != "fixed" and torch.get_num_threads() != first.threads:
            torch.set_num_threads(first.threads)
        began = time.monotonic()
        with torch.no_grad(), torch.inference_mode(first.inference):
            if first.rows is None:
                self._answer_alone(first)
                return
            if not batch[0].last:
                self._measure(first)
                return
            try:
                self._answer(batch)
            except BaseException as error:
                self._failed(batch, error)
        now = time.monotonic()
        until = now + min(max(WINDOW * (now - began), LEAST_WINDOW), MOST_WINDOW)
        with self._changed:
            here = {call.caller for call in self._line}  # back already, or with more rows than went in
            away = [each.call for each in batch if each.call.caller not in here]
            self._expected |= {call.caller: (call.group, until) for call in away}

    def _answer_alone(self, call: Waiting) -> None:
        try:
            call.answer.set_result(call.network(*call.arguments, **call.named))
        except BaseException as error:
            call.answer.set_exception(error)

    def _answer(self, batch: Sequence[Taken]) -> None:
        """Computes rows together, and answers the calls that have all of theirs."""
        parts = [each.call.rows.part(each.first, each.last) for each in batch if each.call.rows is not None]
        together = CallRows.joined(parts)
        if self.mode.kind == "fixed":
            together = together.filled(self._most_rows(batch[0].call))
        arguments, named = together.arguments()
        output: Tensor = batch[0].call.network(*arguments, **named)
        with self._changed:
            self.calls, self.rows, first = self.calls + 1, self.rows + sum(part.count for part in parts), 0
            for each, part in zip(batch, parts, strict=True):
                self._give(each, output[first : first + part.count].clone())
                first += part.count

    def _give(self, taken: Taken, part: Tensor) -> None:
        """Gives a call some of its rows; answers it where they were the last ones. Under the lock."""
        call = taken.call
        call.parts[taken.first] = part
        whole = [call.parts[first] for first in sorted(call.parts)]
        if call.rows is not None and sum(map(len, whole)) == call.rows.count and not call.answer.done():
            call.answer.set_result(whole[0] if len(whole) == 1 else torch.cat(whole))

    def _failed(self, batch: Sequence[Taken], error: BaseException) -> None:
        """Each call again by itself, so that one that fails fails alone; with less at once where memory ran out."""
        if len(batch) == 1:
            call = batch[0].call
            with self._changed:
                self._line = [each for each in self._line if each is not call]
                if not call.answer.done():
                    call.answer.set_exception(error)
            return
        call = batch[0].call
        if is_out_of_memory(error) and self.mode.kind == "free":
            smaller = max(sum(each.last - each.first for each in batch) // 2, 1)
            self._set_limit(call, smaller)
        for each in batch:
            try:
                self._answer([each])
            except BaseException as own:
                self._failed([each], own)

    def _measure(self, call: Waiting) -> None:
        """How many rows a call of this network and shape has: those that pay, or the fixed number. One, where with that
        number a row's bits would depend on its place. Where a larger call fails, the rows of one run."""
        assert call.rows is not None
        rows, count = call.rows, call.rows.count

        def run(given: CallRows) -> Tensor:
            arguments, named = given.arguments()
            output: Tensor = call.network(*arguments, **named)
            return output

        try:
            if self.mode.kind == "fixed":
                found = self.mode.rows if places_agree(run, rows, self.mode.rows) else 1
            else:
                found = measured_cap(lambda many: run(rows.filled(many)), count)
        except Exception:  # a call that fails says so when it is computed
            found = self.mode.rows or count
        self._set_limit(call, found)

    def _set_limit(self, call: Waiting, rows: int) -> None:
        with self._changed:
            self._limits.setdefault(origin(call.module), {})[call.key] = rows
            self._measured = [each for each in self._measured if each is not call]
            if self.mode.kind == "free":
                self.cap = rows
            self._changed.notify_all()
