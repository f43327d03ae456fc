"""The check of pictures for content, where a server has one: what it flags is shown blurred, and says so itself.

A flagged picture goes everywhere blurred: into files, previews, and answers; live pictures are off. Its text has
"Content flag: blurred", which the page, every API and later readers see. Originals are kept only on request, in a
folder that no address leads to.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..events import Event, Images
from ..images import GeneratedImage, save_image
from ..jobs import Picture
from ..jobs.worker import JobRunner, close_stream
from ..request.request import Request
from ..request.writers.forms import KEY
from .settings import ServerSettings

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..models.clip_vision import ContentChecker

FLAG = "Content flag: blurred"
ORIGINALS = "flagged"
"""Folder in the data folder."""
STRENGTH = 12
"""A picture's longer side over the radius of the blur: nothing of a face or a body is left to be seen."""


class CheckedRunner:
    """A runner whose pictures are checked before anybody has them.

    originals  a folder for flagged pictures as they were; None keeps none
    """

    def __init__(self, runner: JobRunner, checker: ContentChecker, originals: Path | None = None) -> None:
        self.runner, self.checker, self.originals = runner, checker, originals

    def run(self, request: Request, *, wants_preview: Callable[[], bool] | None = None) -> Iterator[Event]:
        """The events of a request, checked; errors at once are those of the runner."""
        return self._events(self.runner.run(request, wants_preview=wants_preview))

    def release(self) -> None:
        self.runner.release()

    def _events(self, events: Iterator[Event]) -> Iterator[Event]:
        try:
            for event in events:
                if isinstance(event, Images):
                    yield self._shown(event)
                elif event.preview is not None:  # what it will be is not known yet
                    yield replace(event, preview=blurred(event.preview))
                else:
                    yield event
        finally:
            close_stream(events)

    def _shown(self, event: Images) -> Images:
        flags = self.checker.flags(event.images)
        if not any(flags):
            return event
        images, notes = [], list(event.notes)
        for number, (image, flagged) in enumerate(zip(event.images, flags, strict=True), event.first + 1):
            images.append(self._blurred(image) if flagged else image)
            if flagged:
                notes.append(f"picture {number} was flagged by the check of content and is blurred")
        return replace(event, images=tuple(images), notes=tuple(notes))

    def _blurred(self, image: Image) -> Image:
        if self.originals is not None:
            self.originals.mkdir(parents=True, exist_ok=True)
            save_image(image, self.originals / f"{secrets.token_hex(8)}.png")
        shown = GeneratedImage.of(blurred(image))
        shown.info = {**image.info, KEY: _with_flag(str(image.info.get(KEY, "")))}
        return shown


def runners_of(runners: Sequence[JobRunner], settings: ServerSettings) -> tuple[JobRunner, ...]:
    """The runners, with the check of content where one is configured; ModelFileError where its file is none."""
    if settings.content_checker is None:
        return tuple(runners)
    import torch

    from ..weights.networks.content_checker import load_content_checker

    first = settings.device.split(",")[0].strip()
    usual = "cuda" if first == "auto" and torch.cuda.is_available() else "cpu"
    checker = load_content_checker(settings.content_checker, device=first if first.startswith("cuda") else usual)
    originals = settings.data.expanduser() / ORIGINALS if settings.keep_originals else None
    return tuple(CheckedRunner(runner, checker, originals) for runner in runners)


def blurred(image: Image) -> Image:
    """The picture without anything that can be made out, transparency too."""
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(max(image.size) / STRENGTH))


def _with_flag(text: str) -> str:
    head, version, rest = text.rpartition(", Version: ")
    return f"{head}, {FLAG}{version}{rest}" if version else f"{text}, {FLAG}"


def is_flagged(picture: Picture) -> bool:
    """Whether a picture of the gallery is one that was blurred."""
    return FLAG in picture.parameters.rpartition("\n")[2]
