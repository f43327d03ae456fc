"""Many requests from Python, one after another or by several processes, answered in their order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..errors import InvalidRequest, StableDiffusionError, what_is
from ..events import Images
from ..jobs.inputs import with_seeds
from ..request.json import from_json
from ..request.request import Request
from ..runner import LocalRunner

MOST_ATTEMPTS = 3
"""Times that a request is tried whose process dies."""
AHEAD = 2
"""Requests for each worker that are taken before their turn."""


def generate_many(
    requests: Iterable[Request | str | Mapping[str, Any]],
    *,
    workers: int = 1,
    threads: int = 0,
    devices: Sequence[str] = ("auto",),
    dtype: str = "auto",
) -> Iterator[Images]:
    """The pictures of many requests, in the order of the requests; an `Images` for each picture.

    requests  any number of them, also a generator without an end: a `Request`, a prompt, or a mapping of settings
    workers   processes; 1 works in this one. More of them import the script again, so that a script needs the usual
              `if __name__ == "__main__":`
    threads   of torch in each process; 0 leaves the number to torch
    devices   worker k works on device k, round and round: ("cuda:0", "cuda:1")

    Each picture is, bit for bit, what `generate` makes of its request with as many threads. A request whose process
    dies is tried three times. To keep the pictures on the disk and go on after a crash, use `stable-diffusion bulk`.
    Raises InvalidRequest for a request that cannot be used, when its turn comes.
    """
    for name, value, least in (("workers", workers, 1), ("threads", threads, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidRequest(f"{name} is {what_is(value)}; expected a whole number from {least}")
    if isinstance(requests, (str, Mapping, Request)) or not isinstance(requests, Iterable):
        raise InvalidRequest(f"the requests are {what_is(requests)}; expected a list or another iterable of them")
    if not devices or isinstance(devices, str):
        raise InvalidRequest(f"devices is {what_is(devices)}; expected a list such as ['cuda:0', 'cuda:1']")
    asked = map(_request, requests)
    if workers == 1 and not threads:
        return _here(asked, LocalRunner(device=devices[0], dtype=dtype))
    return _Pool(workers, threads, tuple(devices), dtype).run(asked)


def _request(given: object) -> Request:
    if isinstance(given, str):
        return Request(given)
    return given if isinstance(given, Request) else from_json(given)


def _here(requests: Iterable[Request], runner: LocalRunner) -> Iterator[Images]:
    for request in requests:
        for event in runner.run(request):
            if isinstance(event, Images):
                yield event


class _Pool:
    """Processes that each hold a runner; replaced where one of them dies."""

    def __init__(self, workers: int, threads: int, devices: tuple[str, ...], dtype: str) -> None:
        self.workers, self.threads, self.devices, self.dtype = workers, threads, devices, dtype

    def run(self, requests: Iterable[Request]) -> Iterator[Images]:
        waiting: deque[tuple[Request, int, Future[list[Images]]]] = deque()
        todo, pool = iter(requests), self._start()
        try:
            while True:
                room = AHEAD * self.workers - len(waiting)
                for request in itertools.islice(todo, room):
                    fixed = with_seeds(request)  # drawn once, so that a second attempt makes the same pictures
                    waiting.append((fixed, 1, pool.submit(_pictures, fixed)))
                if not waiting:
                    return
                request, attempt, future = waiting.popleft()
                try:
                    pictures = future.result()
                except BrokenProcessPool:
                    if attempt == MOST_ATTEMPTS:
                        raise StableDiffusionError(
                            f"the process that worked on {request.prompt[:60]!r} died {attempt} times; "
                            "a smaller picture, or fewer workers, may need less memory"
                        ) from None
                    pool.shutdown(wait=False, cancel_futures=True)
                    pool = self._start()
                    again = [(request, attempt + 1), *((each, tries) for each, tries, _ in waiting)]
                    waiting = deque((each, tries, pool.submit(_pictures, each)) for each, tries in again)
                    continue
                yield from pictures
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        numbers = context.Queue()
        for number in range(self.workers):
            numbers.put(number)
        settings = (numbers, self.threads, self.devices, self.dtype)
        return ProcessPoolExecutor(self.workers, mp_context=context, initializer=_begin, initargs=settings)


_RUNNERS: list[LocalRunner] = []
"""Of a worker process: the one that it holds."""


def _begin(numbers: Any, threads: int, devices: Sequence[str], dtype: str) -> None:
    """What a worker process does first: takes a number, and with it a device."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    _RUNNERS.append(LocalRunner(device=devices[numbers.get() % len(devices)], dtype=dtype))


def _pictures(request: Request) -> list[Images]:
    """All pictures of a request, in a worker process."""
    return [event for event in _RUNNERS[0].run(request) if isinstance(event, Images)]
