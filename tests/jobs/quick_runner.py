"""A runner without a model: pictures of one colour, steps that wait for the test, errors on request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from PIL import Image

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Event, Images, Progress
from stable_diffusion.request.request import Request


class QuickRunner:
    """Each picture takes two steps. A prompt "wait" waits for `go` before each step; "wrong" is refused; "crash" and
    "memory" fail as programs do."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.ran: list[Request] = []
        self.released = self.previews = self.closed = 0

    def run(self, request: Request, *, wants_preview: Callable[[], bool] | None = None) -> Iterator[Event]:
        self.ran.append(request)
        if request.prompt == "wrong":
            raise InvalidRequest("the prompt is wrong; expected a right one")
        if request.prompt in ("crash", "memory"):
            raise RuntimeError("out of memory" if request.prompt == "memory" else "a private matter")
        return self._stream(request, wants_preview)

    def _stream(self, request: Request, wants_preview: Callable[[], bool] | None) -> Iterator[Event]:
        try:
            for number in range(request.count):
                for index in (1, 2):
                    self.begun.set()
                    if request.prompt == "wait":
                        assert self.go.wait(20)
                    shown = wants_preview is not None and wants_preview()
                    self.previews += shown
                    yield Progress(
                        index=index, total=2, sigma=1.0, picture=number, pictures=request.count,
                        preview=Image.new("RGB", (8, 8)) if shown else None,
                    )  # fmt: skip
                single = request.single(number)
                image = Image.new("RGB", (16, 16), (single.seed or 0) % 255)
                image.info["parameters"] = f"{single.prompt}\nSteps: 2, Seed: {single.seed}, Size: 16x16"
                yield Images(images=(image,), first=number, requests=(single,), notes=("a note",))
        finally:
            self.closed += 1

    def release(self) -> None:
        self.released += 1
