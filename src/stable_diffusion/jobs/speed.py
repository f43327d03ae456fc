"""How long a job will take, from how long those before it took with the same model."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .records import Job, Place

if TYPE_CHECKING:
    from .worker import Worker

USUAL_SIDE, USUAL_STEPS = 512, 20
WEIGHT = 0.3
"""Of the newest job in the average."""


class Speeds:
    """Seconds for the work of a job, by model. Safe for several threads."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}
        self._lock = threading.Lock()

    def learn(self, job: Job, pictures: int, seconds: float) -> None:
        """So many pictures of a job took so many seconds."""
        if pictures < 1 or seconds <= 0:
            return
        rate = seconds / (pictures * work_of(job.body))
        with self._lock:
            known = self._rates.get(_key(job))
            self._rates[_key(job)] = rate if known is None else (1 - WEIGHT) * known + WEIGHT * rate

    def seconds(self, job: Job) -> float | None:
        """What the whole job will take; None while nothing is known of its model."""
        rate = self._rates.get(_key(job))
        return None if rate is None else rate * job.count * work_of(job.body)


def places(line: Sequence[Job], workers: Sequence[Worker], speeds: Speeds) -> dict[str, Place]:
    """Where jobs stand: those that run first, then the line, each with the time that is left until its end."""
    found: dict[str, Place] = {}
    abreast = sum({worker.gate: worker.gate.together for worker in workers}.values())
    busy, known = 0.0, True
    for current in [worker.current for worker in workers]:
        if current is not None:
            left = speeds.seconds(current.job)
            left = None if left is None else left * (1 - current.fraction)
            known, busy = known and left is not None, busy + (left or 0.0)
            found[current.job.id] = Place(position=0, fraction=current.fraction, seconds_left=left)
    for index, job in enumerate(line):
        seconds = speeds.seconds(job)
        known, busy = known and seconds is not None, busy + (seconds or 0.0)
        left = busy / max(abreast, 1) if known else None
        found[job.id] = Place(position=index + 1, seconds_left=left)
    return found


def _key(job: Job) -> str:
    return f"{job.kind}\n{job.model}"


def work_of(body: Mapping[str, Any]) -> float:
    """The work of one picture: pixels times steps, with the second pass of hires."""
    width, height = (_number(body.get(name), USUAL_SIDE) for name in ("width", "height"))
    work = width * height * _number(body.get("steps"), USUAL_STEPS) * _number(body.get("strength"), 1.0)
    hires = body.get("hires")
    if isinstance(hires, Mapping):
        work *= 1 + _number(hires.get("scale"), 2.0) ** 2 * _number(hires.get("strength"), 0.7)
    return max(work, 1.0)


def _number(value: object, usual: float) -> float:
    return float(value) if isinstance(value, (int, float)) and value > 0 else float(usual)
