"""Mixed requests one at a time, and with shared network calls: pictures a second, and how long each waits.

    python benchmarks/sharing.py [--mode free] [--model embedded] [--requests 16] [--threads 2] [--load 1.1]

First all requests are there at once; then they come at random times, at `load` times what one at a time can do.
"""

from __future__ import annotations

import argparse
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence

import torch

from stable_diffusion.pipeline.models import load
from stable_diffusion.request.request import Request
from stable_diffusion.runner import LocalRunner

SAMPLERS = ("euler", "dpmpp_2m", "euler_a", "heun", "ddim")
GUIDANCES = (3.0, 5.0, 7.5)


def mixed(count: int, model: str) -> list[Request]:
    """Five samplers, three guidances, 8 to 16 steps."""
    return [
        Request(
            f"a red cat, number {index}",
            model=model,
            sampler=SAMPLERS[index % 5],
            guidance=GUIDANCES[index % 3],
            steps=8 + index * 3 % 9,
            seed=index,
        )
        for index in range(count)
    ]


def served(runner: LocalRunner, requests: Sequence[Request], arrivals: Sequence[float]) -> tuple[float, list[float]]:
    """Seconds until all are done, and from each request's arrival to its picture."""
    line: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    seconds = [0.0] * len(requests)
    began = time.perf_counter()

    def work() -> None:
        while (number := line.get()) is not None:
            for _ in runner.run(requests[number]):
                pass
            seconds[number] = time.perf_counter() - began - arrivals[number]

    workers = [threading.Thread(target=work) for _ in range(max(runner.together, 1))]
    for worker in workers:
        worker.start()
    for number, at in enumerate(arrivals):
        time.sleep(max(began + at - time.perf_counter(), 0))
        line.put(number)
    for _ in workers:
        line.put(None)
    for worker in workers:
        worker.join()
    return time.perf_counter() - began, seconds


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def said(name: str, run: Callable[[], tuple[float, list[float]]]) -> float:
    cpu = time.process_time()
    took, seconds = run()
    cpu = time.process_time() - cpu
    p50, p95 = percentile(seconds, 0.5), percentile(seconds, 0.95)
    sys.stdout.write(f"{name:34} {took:6.2f} s  cpu {cpu:6.2f} s  p50 {p50:5.2f} s  p95 {p95:5.2f} s\n")
    sys.stdout.flush()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", default="free")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--load", type=float, default=1.1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    requests = mixed(given.requests, given.model)
    alone, sharing = LocalRunner(), LocalRunner(share=given.mode)
    load(given.model)
    for runner in (alone, sharing):  # loads, and measures what pays
        for _ in runner.run(requests[0]):
            pass
    sys.stdout.write(f"{given.model}, {given.threads} threads, {given.mode}: {sharing.together} runs at once\n")
    now = [0.0] * len(requests)
    one = said("one at a time", lambda: served(alone, requests, now))
    many = said("shared", lambda: served(sharing, requests, now))
    sys.stdout.write(f"{one / many:.2f} times\n")
    rest = random.Random(1)
    at, arrivals = 0.0, []
    for _ in requests:
        arrivals.append(at)
        at += rest.expovariate(given.load * len(requests) / one)
    said(f"one at a time, load {given.load}", lambda: served(alone, requests, arrivals))
    said(f"shared, load {given.load}", lambda: served(sharing, requests, arrivals))


if __name__ == "__main__":
    main()
