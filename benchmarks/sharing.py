"""Mixed requests one at a time, and with shared network calls: pictures a second, and how long each waits.

    python benchmarks/sharing.py [--mode free] [--model embedded] [--requests 16] [--threads 2] [--load 1.0] [--come 40]

First all requests are there at once, `--rounds` times each way by turns; then `--come` of them come at random times, at
`load` times what one at a time can do. `others` is what the rest of the machine used meanwhile, in processors.
"""

from __future__ import annotations

import argparse
import itertools
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

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


def busy_seconds() -> float:
    """What all processors have worked since the start (Linux; else 0)."""
    try:
        numbers = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return 0.0
    return (sum(numbers) - numbers[3] - numbers[4]) / os.sysconf("SC_CLK_TCK")  # idle, and waiting for disks


def said(name: str, run: Callable[[], tuple[float, list[float]]]) -> float:
    cpu, all_of_it = time.process_time(), busy_seconds()
    took, seconds = run()
    cpu, all_of_it = time.process_time() - cpu, busy_seconds() - all_of_it
    p50, p95, others = percentile(seconds, 0.5), percentile(seconds, 0.95), max(all_of_it - cpu, 0) / took
    line = f"{name:30} {took:6.2f} s  cpu {cpu:6.2f} s  p50 {p50:5.2f} s  p95 {p95:5.2f} s  others {others:4.2f}"
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", default="free")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--load", type=float, nargs="*", default=[1.0])
    parser.add_argument("--come", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the times at which requests come")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    requests = mixed(given.requests, given.model)
    alone, sharing = LocalRunner(), LocalRunner(share=given.mode)
    load(given.model)
    for runner in (alone, sharing):  # loads, and measures what pays
        for _ in runner.run(requests[0]):
            pass
    sys.stdout.write(f"{given.model}, {given.threads} threads, {given.mode}: {sharing.together} runs at once\n")
    now, ones, many = [0.0] * len(requests), [], []
    for _ in range(given.rounds):
        ones.append(said("one at a time", lambda: served(alone, requests, now)))
        many.append(said("shared", lambda: served(sharing, requests, now)))
        sys.stdout.write(f"{ones[-1] / many[-1]:.2f} times\n")
    later = mixed(given.come, given.model)
    for share in given.load:
        arrivals = spread(given.come, share * len(requests) / min(ones), given.seed)
        for name, runner in (("one at a time", alone), ("shared", sharing)):
            said(f"{name}, load {share}", partial(served, runner, later, arrivals))


def spread(count: int, rate: float, seed: int) -> list[float]:
    """Times at which so many requests come, `rate` a second, none knowing of the others."""
    generator = random.Random(seed)
    return list(itertools.accumulate(generator.expovariate(rate) for _ in range(count)))


if __name__ == "__main__":
    main()
