"""A real server under open load, against the simulation of `benchmarks.fleet` with the same arrivals.

python -m benchmarks.fleet_load [--rates 0.5 0.8 1.3] [--seconds 30] [--out FILE]

Rates are shares of what one worker can do, which is measured first: with three requests always in flight the worker is
never idle, and the time of each is its service; what a request alone takes beyond that is overhead, during which others
may be served.

The simulation is done twice: with that service, measured before the load; and with the time of each request that the
queue wrote down during the load, which leaves only the queue to be foretold, whatever else the machine does meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import httpx

from .fleet import Arrival, Fleet, Machine, Outcome, poisson, simulate

STEPS = 4
PATH = "/sdapi/v1/txt2img"


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of a server of the built-in fast model, in a process of its own."""
    command = [sys.executable, "-m", "stable_diffusion", "serve", "--port", "0", "--data", str(folder)]
    process = subprocess.Popen([*command, "-m", "embedded-fast"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "listening at " in line:
                break
        yield line.split("listening at ")[1].strip()
    finally:
        process.kill()
        process.wait()


async def ask(http: httpx.AsyncClient, seed: int) -> float:
    """Seconds from asking for a picture to having it."""
    began = time.perf_counter()
    answer = await http.post(PATH, json={"prompt": "a red cat", "steps": STEPS, "seed": seed, "save_images": False})
    answer.raise_for_status()
    return time.perf_counter() - began


async def one_by_one(address: str, count: int) -> list[float]:
    """Seconds of requests that have the server to themselves."""
    async with httpx.AsyncClient(base_url=address, timeout=300) as http:
        await ask(http, 0)
        return [await ask(http, seed) for seed in range(count)]


async def always_busy(address: str, count: int) -> float:
    """Seconds of a request where the worker is never idle."""
    async with httpx.AsyncClient(base_url=address, timeout=300) as http:
        left = iter(range(count))
        began = time.perf_counter()

        async def client() -> None:
            for seed in left:
                await ask(http, seed)

        await asyncio.gather(*(client() for _ in range(3)))
        return (time.perf_counter() - began) / count


async def under_load(address: str, arrivals: Sequence[Arrival]) -> Outcome:
    """Each request at its time, whether the ones before are answered or not."""
    outcome = Outcome()
    async with httpx.AsyncClient(base_url=address, timeout=300, limits=httpx.Limits(max_connections=None)) as http:
        start = time.perf_counter()

        async def one(number: int, arrival: Arrival) -> None:
            await asyncio.sleep(arrival.at - (time.perf_counter() - start))
            outcome.latencies.append(await ask(http, number))
            outcome.ends.append(time.perf_counter() - start)

        await asyncio.gather(*(one(number, each) for number, each in enumerate(arrivals)))
    return outcome


def served(folder: Path, count: int) -> tuple[list[float], float]:
    """Of the last `count` requests, in the order in which they were begun: seconds each was worked on; and the seconds
    from one's end to the beginning of the next where that one waited."""
    with sqlite3.connect(f"file:{folder / 'jobs.db'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT created, started, finished FROM jobs WHERE state = 'done' ORDER BY started")
        jobs = rows.fetchall()[-count:]
    pairs = itertools.pairwise(jobs)
    between = [later[1] - one[2] for one, later in pairs if later[0] < one[2]]
    return [finished - started for _, started, finished in jobs], statistics.median(between) if between else 0.0


def as_it_was(arrivals: Sequence[Arrival], folder: Path, alone: float) -> Outcome:
    """The simulation with the time of each request as the queue wrote it down; `alone` is what one takes besides."""
    seconds, between = served(folder, len(arrivals))
    known = [Arrival(each.at, round(1000 * (own + between))) for each, own in zip(arrivals, seconds, strict=True)]
    machine = Machine(name="a millisecond a step", floor=0, fixed=0, each=1, decode=0)
    return delayed(simulate(Fleet(machine=machine), known), alone - between)


def delayed(outcome: Outcome, seconds: float) -> Outcome:
    """The same with so many seconds more for each."""
    return Outcome([each + seconds for each in outcome.latencies], [each + seconds for each in outcome.ends])


def figures(outcome: Outcome) -> dict[str, float]:
    """p50 and p95 in seconds, and answers a second."""
    rate = len(outcome.ends) / max(outcome.ends)
    found = {"p50": outcome.percentile(0.5), "p95": outcome.percentile(0.95), "throughput": rate}
    return {name: round(value, 3) for name, value in found.items()}


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet_load", description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 0.8, 1.3])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--alone", type=int, default=20, help="requests one at a time, which give the service time")
    parser.add_argument("--out", type=Path, help="JSON of the machine and the comparison")
    options = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as address:
        alone = asyncio.run(one_by_one(address, options.alone))
        besides = statistics.fmean(alone) - statistics.fmean(served(Path(folder), options.alone)[0])
        service = asyncio.run(always_busy(address, options.alone))
        apart = max(0.0, statistics.fmean(alone) - service)
        each = 1000 * service / STEPS
        machine = Machine(name=platform.processor() or platform.machine(), floor=0, fixed=0, each=each, decode=0)
        print(
            f"alone: mean {statistics.fmean(alone):.3f} s, {min(alone):.3f} to {max(alone):.3f}; busy: {service:.3f} s"
        )
        compared = []
        for rate in options.rates:
            arrivals = list(poisson(rate / service, options.seconds, seed=7, mix=((1.0, STEPS),)))
            real = figures(asyncio.run(under_load(address, arrivals)))
            said = figures(delayed(simulate(Fleet(machine=machine), arrivals), apart))
            off = {name: round(real[name] / said[name] - 1, 3) for name in real}
            known = figures(as_it_was(arrivals, Path(folder), besides))
            near = {name: round(real[name] / known[name] - 1, 3) for name in real}
            found = {"rate": rate, "requests": len(arrivals), "real": real, "simulated": said, "off": off}
            compared.append({**found, "simulated with the times of this load": known, "then off": near})
            print(json.dumps(compared[-1]))
    if options.out is not None:
        options.out.write_text(json.dumps({"machine": asdict(machine), "alone": alone, "load": compared}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
