"""Requests run one after another, with progress on the terminal; pictures are saved as soon as they are finished."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..events import Images, Progress
from ..request.request import Request
from . import files
from .format import echo_json
from .options import load_model
from .output import Output

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..pipeline.models import StableDiffusion


def run_all(requests: Sequence[Request], output: Output, start: float) -> None:
    """Generate and save, and say where the pictures are; `start` is when the command began (`time.monotonic`)."""
    count = sum(request.count for request in requests)
    output.check(count)
    records = []
    for request in requests:
        for path, seed, image in _run(request, output, several=count > 1):
            records.append({"path": path, "seed": seed, "width": image.width, "height": image.height})
            if not output.as_json and not output.to_stdout:
                click.echo(str(path))
    if output.verbose:
        click.echo(cost(time.monotonic() - start), err=True)
    if output.as_json:
        echo_json({"images": records, "seconds": round(time.monotonic() - start, 3)})


def cost(seconds: float) -> str:
    """What a run took, in a sentence: "3.2 s on the clock, 5.8 s of CPU, peak memory 2.41 GiB"."""
    from ..engine.memory import peak_device_memory, peak_memory

    parts = [f"{seconds:.1f} s on the clock", f"{time.process_time():.1f} s of CPU"]
    for what, peak in (("peak memory", peak_memory()), ("of the GPU", peak_device_memory())):
        if peak is not None:
            parts.append(f"{what} {peak / 2**30:.2f} GiB")
    return ", ".join(parts)


def _run(request: Request, output: Output, *, several: bool) -> Iterator[tuple[Path, int, Image]]:
    """Run the request and save each picture as soon as it is finished; yields (path, seed, picture)."""
    from .terminal import Display, stderr_console

    with Display(stderr_console(), preview=output.preview) as display:
        from ..pipeline.generate import generate

        said: set[str] = set()
        for event in generate(load_model(request.model), request, preview_every=int(display.preview)):
            if isinstance(event, Progress):
                which = "" if event.pictures == 1 else f" {event.picture + 1} of {event.pictures}"
                display.advance(event.index, event.total, f"generating{which}", event.preview)
                continue
            for note in event.notes:
                if note not in said:
                    display.say(f"note: {note}")
            said.update(event.notes)
            for image, seed, single in zip(event.images, event.seeds, event.requests, strict=True):
                display.say(f"seed {seed}")
                stem = f"{seed}-{files.slug(single.prompt)}"
                yield output.save(image, stem, apart=seed if several else None), seed, image


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
