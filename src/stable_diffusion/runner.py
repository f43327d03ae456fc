"""Who runs a request: the one thing that a command line, a server and a cluster ask.

    for event in LocalRunner().run(Request("a red cat", count=2)):
        ...

What goes in and what comes out is plain data that can leave a process: a `Request`, then `Progress` after every step
and `Images` after every picture. A runner elsewhere (a process, a machine of a cluster) therefore needs no more than a
`LocalRunner` there and a queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from .errors import InvalidRequest, what_is
from .events import Event
from .request.request import Request

if TYPE_CHECKING:
    from .engine.base import Engine
    from .engine.sharing.engine import SharingEngine
    from .pipeline.models import ModelCache, StableDiffusion

MOST_FREE = 8
"""Runs at once at most that share calls of any size."""


class Runner(Protocol):
    """Runs requests, one after another or several at once."""

    def run(self, request: Request) -> Iterator[Event]:
        """The events of a request, of which the last is the `Images` of its last picture.

        Closing the iterator stops the work at the next step. Raises StableDiffusionError, at the call or by the first
        event, where the request or its model cannot be used.
        """
        ...


class LocalRunner:
    """Runs requests in this process, on the models of a cache.

    models         None is the cache of `load`, so that both share what is in memory
    engine         an engine or its name, "auto" for the fastest here; what it refuses runs on torch, with a note in
                   `Images.notes`
    device, dtype  as `load` has them
    preview_every  steps from one preview to the next; 0 for none
    share          "alone"; "fixed:N" or "free" lets runs in several threads share calls of the network, and is
                   written into the pictures (see `engine.sharing.mode`)

    May be used by several threads: a run holds its model until it ends, and changes nothing of it that others see. They
    share the processor, so that on one device more threads than it can feed only make each of them slower.
    """

    def __init__(
        self,
        models: ModelCache | None = None,
        engine: Engine | str | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        preview_every: int = 0,
        share: str = "alone",
    ) -> None:
        from .engine.sharing.mode import ShareMode
        from .pipeline.models import MODELS

        self.models = MODELS if models is None else models
        self.engine = "auto" if engine is None else engine
        self.device, self.dtype, self.preview_every = device, dtype, preview_every
        self.share = ShareMode.parse(share)
        self._shared: dict[Engine, SharingEngine] = {}
        self._last: SharingEngine | None = None
        self._lock = threading.Lock()

    @property
    def together(self) -> int:
        """How many runs in threads pay at once, as far as was measured: 1 where they run alone."""
        if self.share.kind == "fixed":
            return self.most_together
        return 1 if self._last is None else min(self._last.together, self.most_together)

    @property
    def most_together(self) -> int:
        """The most that `together` may be."""
        if self.share.kind != "fixed":
            return MOST_FREE if self.share.kind == "free" else 1
        from .engine.sharing.rendezvous import lanes_here

        return max(self.share.rows // 2, 1) * (lanes_here() if self._on_processor() else 1)

    def _on_processor(self) -> bool:
        import torch

        return self.device == "cpu" or (self.device == "auto" and not torch.cuda.is_available())

    def run(self, request: Request, *, wants_preview: Callable[[], bool] | None = None) -> Iterator[Event]:
        """Loads the request's model where it is not in memory, checks everything, then returns the events.

        wants_preview   asked after each step whether its `Progress` shall have a preview, in the place of
                        `preview_every`
        """
        from .pipeline.generate import generate

        if not isinstance(request, Request):
            raise InvalidRequest(f"the request is {what_is(request)}; expected a Request")
        model = self.model(request)
        return generate(model, request, engine=model.engine, preview_every=wants_preview or self.preview_every)

    def model(self, request: Request) -> StableDiffusion:
        """The model that a request names, loaded where it is not in memory, on this runner's engine."""
        name = self.engine if isinstance(self.engine, str) else "torch"
        model = self.models.get(request.model, self.device, self.dtype, name)
        engine = self._sharing(model.engine if isinstance(self.engine, str) else self.engine)
        return model if engine is model.engine else model.on(engine)

    def _sharing(self, engine: Engine) -> Engine:
        """The engine whose runs share calls, one for each engine of the models."""
        if self.share.kind == "alone":
            return engine
        from .engine.sharing.engine import SharingEngine

        with self._lock:
            self._last = self._shared.setdefault(engine, SharingEngine(engine, self.share))
            return self._last

    def release(self) -> None:
        """Gives back the memory of models, refiners and controls that no run holds.

        Hashes of files and the built-in models, which are small, stay.
        """
        import gc

        import torch

        from .upscaling.network import release_upscalers

        self.models.clear(keep=("hash", "built-in"))
        release_upscalers()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def device_runners(
    devices: Sequence[str] = (), *, engine: Engine | str | None = None, dtype: str = "auto", share: str = "alone"
) -> tuple[LocalRunner, ...]:
    """A runner for each device, each with models of its own; () is every CUDA device of this machine, or else "auto".

    For whoever runs a worker on each: they share nothing, so that a device never waits for another.
    """
    from .pipeline.models import ModelCache

    if not devices:
        import torch

        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["auto"]
    if len(devices) == 1:
        return (LocalRunner(engine=engine, device=devices[0], dtype=dtype, share=share),)
    return tuple(LocalRunner(ModelCache(), engine, device=each, dtype=dtype, share=share) for each in devices)
