"""From lines to jobs: combined with the axes of a grid, seeds fixed, shared out among machines, twins found."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..atomic import whole_file
from ..errors import InvalidRequest
from ..jobs.inputs import Inputs, with_seeds
from ..jobs.records import content_hash
from ..jobs.store import JobStore, Submission
from ..jobs.submission import asked_for
from ..request.axes import Axis
from ..request.json import to_json
from ..request.prompt_file import PromptLine
from ..request.request import Request

OWNER = "bulk"
BATCH = 500
"""Jobs that are written in one transaction."""
PLANNED = "planned"
"""Setting under which the database remembers what was planned already."""


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `parts`."""

    number: int = 1
    parts: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """ "3/64" -> that part. InvalidRequest for anything else."""
        number, sign, parts = text.partition("/")
        if not sign or not (number.isdecimal() and parts.isdecimal()) or not 1 <= int(number) <= int(parts):
            raise InvalidRequest(f"the shard is {text!r}; expected such as 3/64, the third of 64 parts")
        return Shard(int(number), int(parts))

    def has(self, digest: str) -> bool:
        """Whether the request with this hash belongs to this part: equal requests belong to the same one."""
        return int(digest[:12], 16) % self.parts == self.number - 1


def requests_of(
    lines: Iterable[PromptLine], base: Mapping[str, Any], axes: Sequence[Axis]
) -> Iterator[tuple[int, Request]]:
    """Number of a line and its request, for each line and each combination of the values of the axes.

    base   settings that hold where a line says nothing
    """
    occurrences: Counter[str] = Counter()
    for line in lines:
        request = line.request(**base)
        for values in itertools.product(*(axis.values for axis in axes)):
            made = request
            for axis, value in zip(axes, values, strict=True):
                made = axis.applied(made, value)
            yield line.number, _with_fixed_seeds(made, occurrences)


def _with_fixed_seeds(request: Request, occurrences: Counter[str]) -> Request:
    """Open seeds drawn from what is asked and how often it was asked before: the same file gives the same pictures."""
    if request.seed is not None and (request.variation.strength == 0 or request.variation.seed is not None):
        return request
    digest = content_hash(to_json(request))
    occurrences[digest] += 1
    numbers = (
        int.from_bytes(hashlib.sha256(f"{digest} {occurrences[digest]} {part}".encode()).digest()[:4], "big")
        for part in itertools.count()
    )
    return with_seeds(request, lambda: next(numbers))


class Planner:
    """Writes the jobs of a file into a store, each distinct request once."""

    def __init__(self, store: JobStore, inputs: Inputs, shard: Shard, twins: Path) -> None:
        self.store, self.inputs, self.shard, self.twins = store, inputs, shard, twins
        self.lines = self.added = 0

    def plan(self, requests: Iterable[tuple[int, Request]]) -> int:
        """Adds what is new; returns how many lines (and combinations) of this shard ask for what another one asks.

        Nothing is added where a line is wrong: the file is read to its end first.
        """
        first: dict[str, int] = {}
        twins: list[tuple[int, int]] = []
        waiting: list[Submission] = []
        for number, request in requests:
            asked = asked_for(self.inputs, request, OWNER)
            if not self.shard.has(asked.request_hash):
                continue
            self.lines += 1
            if asked.request_hash in first:
                twins.append((number, first[asked.request_hash]))
                continue
            first[asked.request_hash] = number
            waiting.append(replace(asked, idempotency=asked.request_hash, label=str(number)))
        for start in range(0, len(waiting), BATCH):
            self.added += self.store.submit_all(waiting[start : start + BATCH])
        with whole_file(self.twins) as file:
            file.writelines(f"{line}\t{same}\n".encode() for line, same in twins)
        return len(twins)
