"""A simulated fleet: requests arrive, machines make pictures step by step, and what that means for waiting and cost.

python -m benchmarks.fleet                              the tables of docs/scale.md, from public times of GPUs
python -m benchmarks.fleet --machine here.json          from times that were measured on a machine

A machine's file: {"name": "...", "floor": ms, "fixed": ms, "each": ms, "decode": ms, "overhead": ms, "price": per hour,
"source": "..."}; a guided step of n pictures takes max(floor, fixed + each * n).
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

POLICIES = ("alone", "batches", "shared")
MIX = ((0.6, 20), (0.3, 30), (0.1, 8))
"""Shares of the requests and their steps."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How long one machine takes, in milliseconds, and what an hour of it costs."""

    name: str
    floor: float
    fixed: float
    each: float
    decode: float
    overhead: float = 0.0
    price: float = 0.0
    source: str = ""

    def step(self, pictures: int) -> float:
        """Seconds of a step of so many pictures together."""
        return max(self.floor, self.fixed + self.each * pictures) / 1000


H100 = {"price": 3.0}
ASSUMED = "assumed from public times of whole pictures: see docs/scale.md"
MACHINES = {
    "sd15-eager": Machine(name="SD 1.5, eager", floor=18, fixed=2, each=4.5, decode=15, source=ASSUMED, **H100),
    "sd15": Machine(name="SD 1.5, captured", floor=9, fixed=4.5, each=4.5, decode=15, source=ASSUMED, **H100),
    "sdxl": Machine(name="SDXL at 1024", floor=48, fixed=10, each=38, decode=90, source=ASSUMED, **H100),
}


@dataclass(frozen=True)
class Arrival:
    """A request: when it comes, and its steps."""

    at: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Machines behind one queue.

    policy   "alone": one request at a time; "batches": requests of equal steps begin and end together; "shared": steps
             of different requests are joined, and a request comes in at any step
    most     pictures together on a machine
    """

    machine: Machine
    count: int = 1
    policy: str = "alone"
    most: int = 8


@dataclass
class Outcome:
    """What came of it: seconds from arrival to picture, in the order of the ends; and how long the line was."""

    latencies: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    line: list[tuple[float, int]] = field(default_factory=list)
    busy: float = 0.0

    def percentile(self, share: float) -> float:
        """0.5 is the median; infinite where nothing ended."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")

    def growth(self, seconds: float) -> float:
        """Requests by which the line grows in a second, over the second half of the time."""
        half = [(at, length) for at, length in self.line if seconds / 2 <= at <= seconds]
        if len(half) < 2 or half[-1][0] == half[0][0]:
            return 0.0
        return (half[-1][1] - half[0][1]) / (half[-1][0] - half[0][0])


def poisson(rate: float, seconds: float, seed: int = 0, mix: Sequence[tuple[float, int]] = MIX) -> Iterator[Arrival]:
    """Requests that know nothing of each other, `rate` a second."""
    random_of, at = random.Random(seed), 0.0
    while (at := at + random_of.expovariate(rate)) < seconds:
        yield Arrival(at, _steps(random_of, mix))


def bursts(
    rate: float, seconds: float, seed: int = 0, size: int = 20, mix: Sequence[tuple[float, int]] = MIX
) -> Iterator[Arrival]:
    """The same number of requests, half of them in bursts of `size` at once."""
    random_of = random.Random(seed + 1)
    alone = list(poisson(rate / 2, seconds, seed, mix))
    groups = [each.at for each in poisson(rate / 2 / size, seconds, seed + 2)]
    together = [Arrival(at, _steps(random_of, mix)) for at in groups for _ in range(size)]
    yield from sorted([*alone, *together], key=lambda each: each.at)


def _steps(random_of: random.Random, mix: Sequence[tuple[float, int]]) -> int:
    return random_of.choices([steps for _, steps in mix], [share for share, _ in mix])[0]


def simulate(fleet: Fleet, arrivals: Sequence[Arrival]) -> Outcome:
    """Every arrival to its end, event by event."""
    outcome, line = Outcome(), deque[Arrival]()
    running: list[list[list[float]]] = [[] for _ in range(fleet.count)]  # of each machine: [arrival, steps left]
    idle, events = set(range(fleet.count)), list[tuple[float, int, int]]()
    for number, arrival in enumerate(arrivals):
        events.append((arrival.at, 0, number))
    heapq.heapify(events)
    while events:
        now, kind, number = heapq.heappop(events)
        if kind == 0:
            line.append(arrivals[number])
            outcome.line.append((now, len(line)))
            if not idle:
                continue
            number = idle.pop()
        begun = _finish(fleet, running[number], outcome, now) if kind else now
        _admit(fleet, running[number], line)
        if running[number]:
            idle.discard(number)
            fresh = sum(each[2] for each in running[number])
            for each in running[number]:
                each[2] = 0.0
            end = begun + fleet.machine.step(len(running[number])) + fresh * fleet.machine.overhead / 1000
            heapq.heappush(events, (end, 1, number))
            outcome.busy += end - now
        elif begun > now:  # the last picture is being decoded
            heapq.heappush(events, (begun, 1, number))
            outcome.busy += begun - now
        else:
            idle.add(number)
    return outcome


def _finish(fleet: Fleet, running: list[list[float]], outcome: Outcome, now: float) -> float:
    """Takes a step off everything that runs; returns when the pictures that are complete are decoded too."""
    for each in running:
        each[1] -= 1
    complete = [each for each in running if each[1] <= 0]
    for each in complete:
        now += fleet.machine.decode / 1000
        outcome.latencies.append(now - each[0])
        outcome.ends.append(now)
        running.remove(each)
    return now


def _admit(fleet: Fleet, running: list[list[float]], line: deque[Arrival]) -> None:
    """Lets requests of the line onto a machine, as the policy has it."""
    most = 1 if fleet.policy == "alone" else fleet.most
    if fleet.policy != "shared" and running:
        return
    steps = line[0].steps if line else 0
    while line and len(running) < most:
        if fleet.policy == "batches" and line[0].steps != steps:
            break
        arrival = line.popleft()
        running.append([arrival.at, arrival.steps, 1.0])


def most_requests(fleet: Fleet, bound: float, seconds: float = 300.0) -> float:
    """Requests a second, spread as Poisson has it, of which 95 in a hundred are answered within `bound` seconds."""
    low, high = 0.0, 4000.0 / max(fleet.machine.each, 0.1) * fleet.count / 8
    for _ in range(12):
        rate = (low + high) / 2
        outcome = simulate(fleet, list(poisson(rate, seconds))) if rate > 0 else Outcome([0.0])
        low, high = (rate, high) if outcome.percentile(0.95) <= bound else (low, rate)
    return low


def cost(fleet: Fleet, rate: float) -> float:
    """Price of 1,000 pictures, in the currency of the machine's price."""
    return fleet.machine.price * fleet.count / max(rate * 3.6, 1e-9)


def tables(machine: Machine, bound: float, count: int, most: int, seconds: float) -> Iterator[str]:
    """Lines of text: for each policy the load that holds the bound, its cost, and a line that grows beyond it."""
    yield f"{machine.name}: {count} machines, p95 at most {bound:g} s; {machine.source or 'measured'}"
    yield "policy    req/s   p50 s   p95 s   per 1,000   bursts p95 s   growth at 1.2 times, req/s each second"
    for policy in POLICIES:
        fleet = Fleet(machine=machine, count=count, policy=policy, most=most)
        rate = most_requests(fleet, bound, seconds)
        if rate <= 0:
            yield f"{policy:8} {rate:6.1f}   the bound is not held"
            continue
        found = simulate(fleet, list(poisson(rate, seconds)))
        burst = simulate(fleet, list(bursts(rate, seconds))).percentile(0.95)
        growth = simulate(fleet, list(poisson(1.2 * rate, seconds))).growth(seconds)
        middle, late = found.percentile(0.5), found.percentile(0.95)
        yield f"{policy:8} {rate:6.1f} {middle:7.2f} {late:7.2f} {cost(fleet, rate):11.3f} {burst:14.2f} {growth:10.2f}"


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--machine", type=Path, action="append", default=[], help="file of a machine's times")
    parser.add_argument("--count", type=int, default=8, help="machines behind one queue")
    parser.add_argument("--most", type=int, default=8, help="pictures together on a machine")
    parser.add_argument("--bound", type=float, help="seconds of p95; 1 for SD 1.5, 3 for others")
    parser.add_argument("--seconds", type=float, default=300.0, help="seconds of load")
    options = parser.parse_args(given)
    read = [Machine(**json.loads(path.read_text())) for path in options.machine]
    for machine in read or MACHINES.values():
        bound = options.bound or (1.0 if "1.5" in machine.name else 3.0)
        for line in tables(machine, bound, options.count, options.most, options.seconds):
            print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
