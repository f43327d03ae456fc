"""Requests run one after another, with progress on the terminal; pictures are saved as soon as they are finished."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..events import Images, Progress
from ..request.request import Request
from . import files
from .format import echo_json
from .options import chosen, load_model
from .output import Output
from .served.client import served_pictures
from .served.picture import NotServed, Watch
from .start.ahead import begin, uncollected
from .start.leave import finished
from .start.light_torch import import_torch_lightly

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..pipeline.models import StableDiffusion
    from .terminal import Display


def run_all(requests: Sequence[Request], output: Output, start: float) -> None:
    """Generate and save, and say where the pictures are; `start` is when the command began (`time.monotonic`)."""
    count = sum(request.count for request in requests)
    output.check(count)
    records = []
    for request in requests:
        for made in _run(request, output, several=count > 1):
            records.append({"path": made.path, "seed": made.seed, "width": made.width, "height": made.height})
            if not output.as_json and not output.to_stdout:
                click.echo(str(made.path))
    if output.verbose:
        click.echo(cost(time.monotonic() - start), err=True)
    if output.as_json:
        echo_json({"images": records, "seconds": round(time.monotonic() - start, 3)})
    finished()


def cost(seconds: float) -> str:
    """What a run took, in a sentence: "3.2 s on the clock, 5.8 s of CPU, peak memory 2.41 GiB"."""
    from ..engine.memory import peak_device_memory, peak_memory

    parts = [f"{seconds:.1f} s on the clock", f"{time.process_time():.1f} s of CPU"]
    for what, peak in (("peak memory", peak_memory()), ("of the GPU", peak_device_memory())):
        if peak is not None:
            parts.append(f"{what} {peak / 2**30:.2f} GiB")
    return ", ".join(parts)


@dataclass(frozen=True)
class Saved:
    """A picture that was made and saved."""

    path: Path
    seed: int
    width: int
    height: int


def _run(request: Request, output: Output, *, several: bool) -> Iterator[Saved]:
    """Run the request, by a server where one does it, and save each picture as soon as it is finished."""
    try:
        yield from _run_served(request, output, several=several)
    except NotServed:
        yield from _run_here(request, output, several=several)


def _run_served(request: Request, output: Output, *, several: bool) -> Iterator[Saved]:
    """The pictures of a server; NotServed where none makes them."""
    shown: list[tuple[int, int, str]] = [(0, 1, "generating")]
    with _display(output) as display:

        def progress(picture: int, pictures: int, index: int, total: int) -> None:
            display.advance(index, total, _which(picture, pictures))
            shown[0] = (index, total, _which(picture, pictures))

        def preview(data: bytes) -> None:
            from PIL import Image

            display.advance(*shown[0], Image.open(io.BytesIO(data)))

        watch = Watch(progress, preview if display.preview else None, display.say)
        for made in served_pictures(request, chosen(), watch):
            display.say(f"seed {made.seed}")
            stem = f"{made.seed}-{files.slug(made.prompt)}"
            path = output.save_png(made.file, stem, apart=made.seed if several else None)
            yield Saved(path, made.seed, made.width, made.height)


def _which(picture: int, pictures: int) -> str:
    return "generating" if pictures == 1 else f"generating {picture + 1} of {pictures}"


def _display(output: Output) -> Display | Lines:
    """A display; without a terminal one that needs no library for it."""
    if not sys.stderr.isatty():
        return Lines()
    from .terminal import Display, stderr_console

    return Display(stderr_console(), preview=output.preview)


class Lines:
    """What `Display` is where stderr is not a terminal: lines that stay, and nothing drawn."""

    preview = False

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, done: int, total: int, description: str = "", picture: Image | None = None) -> None:
        """Nothing: there is no bar."""

    def say(self, line: str) -> None:
        """A line on stderr."""
        click.echo(line, err=True)


def _run_here(request: Request, output: Output, *, several: bool) -> Iterator[Saved]:
    """The pictures of this process."""
    begin()
    with _display(output) as display:
        with uncollected():
            from .. import images  # noqa: F401  # while the thread is at work

            if is_light(request):
                import_torch_lightly()
            from ..pipeline.generate import generate

            model = load_model(request.model)
        said: set[str] = set()
        for line in model.memory if output.verbose else ():
            display.say(line)
        for event in generate(model, request, preview_every=int(display.preview)):
            if isinstance(event, Progress):
                display.advance(event.index, event.total, _which(event.picture, event.pictures), event.preview)
                continue
            for note in event.notes:
                if note not in said:
                    display.say(f"note: {note}")
            said.update(event.notes)
            for image, seed, single in zip(event.images, event.seeds, event.requests, strict=True):
                display.say(f"seed {seed}")
                stem = f"{seed}-{files.slug(single.prompt)}"
                path = output.save(image, stem, apart=seed if several else None)
                yield Saved(path, seed, image.width, image.height)


def is_light(request: Request) -> bool:
    """Whether a picture needs no part of torch but its networks': the built-in model, where it runs by itself."""
    ordinary = {"device": ("auto", "cpu"), "dtype": ("auto", "float32", "bfloat16"), "engine": ("auto", "torch")}
    said = {name: value for name, value in chosen().items() if value}
    return request.model in (None, "embedded", "embedded-fast") and all(
        value in ordinary.get(name, ()) for name, value in said.items()
    )


def run_cells(model: StableDiffusion, requests: Sequence[Request]) -> Iterator[Image]:
    """One picture per request, with one progress bar over all of them."""
    from ..pipeline.generate import generate
    from .terminal import Display, stderr_console

    with Display(stderr_console(), preview=False) as display:
        for done, request in enumerate(requests):
            display.advance(done, len(requests))
            for event in generate(model, request):
                if isinstance(event, Images):
                    yield from event.images
