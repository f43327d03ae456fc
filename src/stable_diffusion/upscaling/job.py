"""Enlarging as a job of the queue: from its JSON to events.

    {"image": "sha256:...", "upscaler": "4x-UltraSharp", "scale": 2.0}

With `width` and `height` in place of `scale`, and `crop`, it covers a size; `second` and `share` mix in another one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..errors import StableDiffusionError
from ..events import Event, Images, Progress
from ..request.pictures import open_picture
from ..request.settings import RESAMPLERS
from .network import load_upscaler
from .picture import Enlarger, Target, upscaled

KIND = "upscale"
STEPS = 100
"""Into which the progress of a job is divided."""


class Uploads(Protocol):
    """Where pictures of jobs are."""

    def read(self, digest: str) -> bytes:
        """The bytes of an uploaded picture."""
        ...


def upscale_handler(
    find: Callable[[str], Path], device: str = "auto"
) -> Callable[[Mapping[str, Any], Uploads], Iterator[Event]]:
    """What runs jobs of the kind "upscale". `find` gives the file of an upscaler's name, or raises."""

    def run(body: Mapping[str, Any], uploads: Uploads) -> Iterator[Event]:
        image = open_picture(io.BytesIO(uploads.read(str(body["image"]).removeprefix("sha256:"))))
        by, second = _enlarger(body["upscaler"], find, device), body.get("second")
        other = None if second is None else _enlarger(second, find, device)
        steps = upscaled(image, by, target_of(body), second=other, share=float(body.get("share", 0.0)))
        said = -1
        while True:
            try:
                step = min(int(next(steps) * STEPS), STEPS - 1)
            except StopIteration as end:
                yield Images(images=(end.value,), first=0, requests=())
                return
            if step > said:
                said = step
                yield Progress(index=step, total=STEPS, sigma=0.0, picture=0, pictures=1)

    return run


def target_of(body: Mapping[str, Any]) -> Target:
    """How large the picture of a job becomes."""
    if body.get("width") is None:
        return Target(scale=float(body.get("scale", 2.0)))
    return Target(size=(int(body["width"]), int(body["height"])), crop=bool(body.get("crop", False)))


def _enlarger(name: object, find: Callable[[str], Path], device: str) -> Enlarger:
    if name in RESAMPLERS:
        return str(name)
    if not isinstance(name, str):
        raise StableDiffusionError("the job names no upscaler")
    return load_upscaler(find(name), device)
