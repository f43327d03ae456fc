"""Where runs meet: calls of the network wait here for each other, and are computed together.

Each run goes on in a thread of its own and calls its network as if it were alone. What arrives while the network
computes is the next call. After a call its runs are expected back for a moment (`line.WINDOW`), since their steps
between two calls are short; a run that ends, fails, is cancelled or skips a call is not waited for longer than that, so
that nobody can hold up the others.

Calls are computed by lanes, threads that all networks share: one that uses all of torch's threads, and as many as these
that use one each (see `line.Line`). A small network gains more by a call on each core than by a call on all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..memory import is_out_of_memory
from ..threads import keep_threads
from .cap import Pays, places_agree, what_pays
from .line import LEAST_WINDOW, WIDE, Line, Taken, Waiting
from .mode import ShareMode
from .rows import CallRows

IDLE = 2.0
"""Seconds without a call after which a lane's thread ends; the next call starts another."""
MOST_LANES = 8
"""Calls at most that are computed at once, by one thread each."""


def lanes_here() -> int:
    """Calls that are computed at once where that pays."""
    return min(torch.get_num_threads(), MOST_LANES)


class Rendezvous:
    """The line of waiting calls, and the threads that compute them; `calls` and `rows` count what was computed."""

    def __init__(self, mode: ShareMode) -> None:
        self.mode, self.threads = mode, torch.get_num_threads()
        self.calls = self.rows = 0
        self.together = 1
        """Guided runs at once that pay, as was last measured: a call of each has two rows."""
        self.line = Line(mode, lanes_here())
        self._changed = threading.Condition()
        self._alive: set[int] = set()

    def compute(self, call: Waiting) -> Any:
        """The answer to a call, when its turn has come; what the network raises is raised here."""
        with self._changed:
            self.line.add(call)
            self._start(self.line.lanes_for(call))
        return call.answer.result()

    def is_busy_apart(self) -> bool:
        """Whether runs go on whose calls are, or will be with one run more, computed by one thread each."""
        with self._changed:
            return self.line.apart and self.line.runs() > 0

    def _start(self, lanes: Sequence[int]) -> None:
        """Lets these lanes look at the line; under the lock."""
        for lane in lanes:
            if lane not in self._alive:
                self._alive.add(lane)
                name = f"shared network calls {lane}"
                threading.Thread(target=self._work, args=(lane,), name=name, daemon=True).start()
        self._changed.notify_all()

    def _work(self, lane: int) -> None:
        keep_threads(self.threads if lane == WIDE else 1)
        while batch := self._wait(lane):
            began = time.monotonic()
            self._compute(batch)
            with self._changed:
                self.line.finished(lane, time.monotonic() - began)
                self._changed.notify_all()

    def _wait(self, lane: int) -> Sequence[Taken]:
        """What a lane computes next; nothing where its thread ends."""
        with self._changed:
            until = time.monotonic() + IDLE
            while not (batch := self.line.take(lane)):
                now, change = time.monotonic(), self.line.next_change()
                if self.line.waiting:
                    until = now + IDLE
                elif until <= now:
                    self._alive.discard(lane)
                    return ()
                self._changed.wait(max((until if change is None else min(until, change)) - now, LEAST_WINDOW))
            return batch

    # --- computing ----------------------------------------------------------------------------------------------------

    def _compute(self, batch: Sequence[Taken]) -> None:
        first = batch[0].call
        with torch.no_grad(), torch.inference_mode(first.inference):
            if first.rows is None:
                self._answer_alone(first)
            elif not batch[0].last:
                self._measure(first)
            else:
                try:
                    self._answer(batch)
                except BaseException as error:
                    self._failed(batch, error)

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
            limit = self.line.limit(batch[0].call)
            together = together.filled(self.mode.rows if limit is None else limit.rows)
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
                self.line.waiting = [each for each in self.line.waiting if each is not call]
                if not call.answer.done():
                    call.answer.set_exception(error)
            return
        call = batch[0].call
        if is_out_of_memory(error) and self.mode.kind == "free":
            smaller = max(sum(each.last - each.first for each in batch) // 2, 1)
            self._set_limit(call, Pays(smaller))
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
            with torch.no_grad(), torch.inference_mode(call.inference):  # of each thread
                output: Tensor = call.network(*arguments, **named)
            return output

        try:
            if self.mode.kind == "fixed":
                found = Pays(self.mode.rows if places_agree(run, rows, self.mode.rows) else 1)
            else:
                lanes = self.line.lanes if call.on_processor else 1
                found = what_pays(lambda many: run(rows.filled(many)), count, lanes)
        except Exception:  # a call that fails says so when it is computed
            found = Pays(self.mode.rows or count)
        self._set_limit(call, found)

    def _set_limit(self, call: Waiting, found: Pays) -> None:
        with self._changed:
            self.line.set_limit(call, found)
            if self.mode.kind == "free":
                self.together = max(found.rows // 2, 1) * (self.line.lanes if found.apart else 1)
            self._start(self.line.lanes_for(call))
