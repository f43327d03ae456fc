"""Load on a real server: many clients at once, each waiting for its own picture and checking that it is its own.

    python -m scripts.load_server --clients 64 --minutes 5

Half of the clients order pictures as jobs and follow their events, half ask as A1111's clients do and wait for the
answer. Told to come later (429), a client waits as long as it is told. Printed at the end: answers by status, jobs a
second, seconds a picture (p50, p95), the memory of the server's process, and whether all of it is as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import psutil
from PIL import Image

SMALL = {"steps": 1, "width": 64, "height": 64}
WARM_UP = 0.3
"""The share of the time after which memory has to stay as it is."""
FLAT = 0.05
WAITING = 48
"""Jobs that may wait of one owner, fewer than there are clients: so some are told to come later."""
EVERY = 0.5
"""Seconds between two looks at the memory."""


@dataclass
class Seen:
    """What the clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def report(self, elapsed: float) -> dict[str, Any]:
        """The figures; memory is in MiB, `growth` from the first third after the warm-up to the last."""
        kept = self.memory[int(len(self.memory) * WARM_UP) :]
        third = max(1, len(kept) // 3)
        before, after = median(kept[:third]), median(kept[-third:])
        cuts = quantiles(self.seconds, n=20) if len(self.seconds) > 1 else [0.0] * 19
        return {
            "statuses": dict(sorted(self.statuses.items())),
            "pictures": len(self.seconds),
            "jobs_per_second": round(len(self.seconds) / elapsed, 2),
            "p50": round(cuts[9], 2),
            "p95": round(cuts[18], 2),
            "memory": [round(before), round(after)],
            "growth": round(after / before - 1, 4),
            "wrong": self.wrong[:10],
        }


def faults(report: dict[str, Any], flat: float | None = FLAT) -> list[str]:
    """What of a report is not as it should be; `flat` is how much memory may grow, None where it is not looked at."""
    found = list(report["wrong"])
    found += [f"answered {status}" for status in report["statuses"] if status not in (200, 202, 429)]
    if flat is not None and report["growth"] > flat:
        found.append(f"memory grew by {report['growth']:.1%}")
    return found if report["pictures"] else [*found, "there was no picture"]


async def run(
    address: str, clients: int, seconds: float, process: int | None = None, verify: ssl.SSLContext | bool = True
) -> dict[str, Any]:
    """So many clients for so long against a server; `process` is whose memory is watched, `verify` as httpx has it."""
    seen, began = Seen(), time.monotonic()
    end = began + seconds
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=900, limits=limits, verify=verify) as http:
        kinds = (_job, _a1111)
        work = [_client(kinds[number % 2], http, seen, number, end) for number in range(clients)]
        watch = asyncio.create_task(_watch(seen, psutil.Process(process)))
        await asyncio.gather(*work)
        watch.cancel()
    return seen.report(time.monotonic() - began)


async def _watch(seen: Seen, process: psutil.Process) -> None:
    while True:
        seen.memory.append(process.memory_info().rss / 2**20)
        await asyncio.sleep(EVERY)


async def _client(ask: Any, http: httpx.AsyncClient, seen: Seen, number: int, end: float) -> None:
    turn = 0
    while time.monotonic() < end:
        turn += 1
        prompt, seed, began = f"apple {turn} of client {number}", number * 1_000_000 + turn, time.monotonic()
        try:
            data = await ask(http, seen, {"prompt": prompt, "seed": seed, **SMALL})
        except Refused as refused:
            await asyncio.sleep(min(refused.seconds, max(end - time.monotonic(), 0)))
            continue
        if data is None:
            continue
        seen.seconds.append(time.monotonic() - began)
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            text = str(image.info.get("parameters", ""))
        found = re.search(r"\bSeed: (\d+)", text)
        if not text.startswith(prompt + "\n") or found is None or int(found[1]) != seed:
            seen.wrong.append(f"asked for {prompt!r} with seed {seed}; the picture says {text[:80]!r}")


class Refused(Exception):
    """The queue is full: come again in so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def _checked(answer: httpx.Response, seen: Seen) -> httpx.Response | None:
    seen.statuses[answer.status_code] += 1
    if answer.status_code == 429:
        raise Refused(float(answer.headers["retry-after"]))
    return answer if answer.is_success else None


async def _job(http: httpx.AsyncClient, seen: Seen, body: dict[str, Any]) -> bytes | None:
    """Ordered as a job, followed by its events, read as its file."""
    ordered = _checked(await http.post("/v1/jobs", json=body), seen)
    if ordered is None:
        return None
    url = ordered.json()["url"]
    async with http.stream("GET", f"{url}/events") as events:
        seen.statuses[events.status_code] += 1
        async for _ in events.aiter_lines():
            pass
    job = _checked(await http.get(url), seen)
    if job is None or job.json()["state"] != "done":
        seen.wrong.append(f"a job ended as {'nothing' if job is None else job.json()['state']}")
        return None
    file = _checked(await http.get(job.json()["pictures"][0]["url"]), seen)
    return None if file is None else file.content


async def _a1111(http: httpx.AsyncClient, seen: Seen, body: dict[str, Any]) -> bytes | None:
    """Asked for and waited for in one request."""
    answer = _checked(await http.post("/sdapi/v1/txt2img", json=body), seen)
    return None if answer is None else base64.b64decode(answer.json()["images"][0])


@contextmanager
def process(folder: Path) -> Iterator[tuple[str, int]]:
    """A server in a process of its own, its data in `folder`: its address and its process id."""
    environment = {**os.environ, "STABLE_DIFFUSION_SERVER_LIMITS_QUEUE_OWNER": str(WAITING)}
    command = [sys.executable, "-m", "stable_diffusion", "serve", "--port", "0", "--data", str(folder)]
    command += ["--model", "embedded-fast"]
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        address = None
        while address is None:
            if started.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            found = re.search(r"listening at (http://\S+)", (folder / "log").read_text())
            address = None if found is None else found[1]
            time.sleep(0.1)
        with httpx.Client(base_url=address) as http:
            while True:
                with_answer = _answers(http)
                if with_answer:
                    break
                time.sleep(0.1)
        yield address, started.pid
    finally:
        started.terminate()
        started.wait(30)


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=5.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, process(Path(folder)) as (address, pid):
        began = psutil.Process(pid).cpu_times()
        report = asyncio.run(run(address, asked.clients, asked.minutes * 60, pid))
        ended = psutil.Process(pid).cpu_times()
    report["server_cpu_seconds"] = round(ended.user + ended.system - began.user - began.system, 1)
    print(json.dumps(report, indent=1))
    wrong = faults(report)
    print("\n".join(wrong) or "as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
