"""A plot run through the queue: a job a cell, and the answer with the sheets."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import Request as HttpRequest
from PIL import Image

from ....errors import InvalidRequest
from ....jobs import Job, Picture, QueueFull
from ....request.request import Request
from ...errors import ApiError
from ...limits import cost_of
from ..answers import Made, generation_answer
from ..bodies import Generation
from ..state import WebUI
from ..txt2img import Translated
from .arguments import TITLE, Plot, cells, plot_of
from .sheets import sheet_file, sheet_text, sheets

Prepare = Callable[[Generation], Awaitable[tuple[Translated, Request]]]
"""A body as the queue takes it."""
MOST_SHEET = 100_000_000
"""Pixels of a sheet."""


@dataclass
class Cells:
    """Cells that were made, in order; None is one that was skipped, or not reached."""

    pictures: list[Picture | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def plot_answer(
    body: Generation, prepare: Prepare, http: HttpRequest, webui: WebUI, owner: str
) -> dict[str, Any]:
    """Run all cells and wait: the sheet, the sheets of each value of Z and the single pictures as they are asked for.

    A cell that cannot be made is an error before the first one is; where a cell fails, or the client goes away, the
    others are cancelled.
    """
    started, plot = time.time(), plot_of(body)
    prepared = [await prepare(cell) for cell in cells(plot, body)]
    _check(plot, [request for _, request in prepared], webui)
    found = await _run(plot, [request for _, request in prepared], _Client(webui, owner, http, body))
    asked = prepared[0][0]
    if body.batch_size * body.n_iter > 1:
        found.notes.append(f"batch_size and n_iter are ignored: a cell of {TITLE} is one picture")
    notes = tuple(dict.fromkeys(note for each, _ in prepared for note in each.notes))
    made = await _made(plot, found, started, webui)
    answered = body.model_copy(update={"batch_size": 1, "n_iter": 1, "seed": prepared[0][1].seed or body.seed})
    return generation_answer(answered, replace(asked, notes=notes), made)


@dataclass(frozen=True)
class _Client:
    """Who asked, and for what."""

    webui: WebUI
    owner: str
    http: HttpRequest
    body: Generation


def _check(plot: Plot, requests: Sequence[Request], webui: WebUI) -> None:
    """InvalidRequest where all cells together are beyond the limits of one request."""
    service = webui.service
    entry = service.library.default_model()
    size, steps = service.usual(entry)
    limits = service.settings.limits
    cost = sum(cost_of(request, size, steps) for request in requests)
    if cost > limits.cost:
        raise InvalidRequest(
            f"the {len(requests)} pictures of the plot would take {cost:.0f} megapixel steps; this server takes at "
            f"most {limits.cost}: ask for fewer values, a smaller size or fewer steps"
        )
    pixels = sum((request.width or size[0]) * (request.height or size[1]) for request in requests)
    if pixels > MOST_SHEET:
        raise InvalidRequest(f"the sheet would have {pixels} pixels; expected at most {MOST_SHEET}")


async def _run(plot: Plot, requests: Sequence[Request], client: _Client) -> Cells:
    """The cells' first pictures, in order. As many jobs wait as there are workers, and one more."""
    service, tasks = client.webui.service, client.webui.watch.tasks
    ahead, waiting, left = len(service.runners) + 1, deque[Job](), deque(requests)
    found = Cells()
    keep = client.body.save_images
    try:
        while waiting or left:
            while left and len(waiting) < ahead:
                try:
                    waiting.append(await service.submit(left[0], client.owner, save=keep))
                except QueueFull:
                    if not waiting:
                        raise
                    break  # there is room again when the next cell is done
                left.popleft()
            job = waiting[0]
            tasks.add(client.owner, client.body.force_task_id, job.id)
            try:
                job = (await service.finished(job.id, None if keep else client.http)).job
            except ApiError as error:
                if error.code != "cancelled" or job.id not in tasks.interrupted:
                    raise
                left.clear()  # what was finished is the answer, as of any interrupted request
                break
            finally:
                tasks.forget(job.id)
            waiting.popleft()
            pictures = await service.call(service.queue.pictures_of, job.id)
            found.pictures.append(pictures[0] if pictures else None)
            found.notes += [note for note in job.notes if note not in found.notes]
    finally:
        for job in waiting:
            service.queue_cancel(job.id)
    found.pictures += [None] * (len(requests) - len(found.pictures))
    return found


async def _made(plot: Plot, found: Cells, started: float, webui: WebUI) -> Made:
    """The pictures of the answer; none where no cell was finished."""
    service = webui.service
    first = next((picture for picture in found.pictures if picture is not None), None)
    notes = tuple(found.notes)
    if first is None:
        return Made(pictures=(), files=(), notes=notes, started=started)
    files = [
        None if each is None else await service.call(service.queue.gallery.read, each.id) for each in found.pictures
    ]
    text = sheet_text(plot, first.parameters)
    made = await service.call(_sheet_files, plot, files, text)
    made = made if plot.sheets else made[:1]
    rows = [replace(first, parameters=text) for _ in made]
    if plot.lone:
        pairs = [(picture, file) for picture, file in zip(found.pictures, files, strict=True) if picture and file]
        rows += [picture for picture, _ in pairs]
        made = [*made, *(file for _, file in pairs)]
    grids = len(rows) - (len(pairs) if plot.lone else 0)
    return Made(pictures=rows, files=made, notes=notes, started=started, sheets=grids)


def _sheet_files(plot: Plot, files: Sequence[bytes | None], text: str) -> list[bytes]:
    pictures: list[Image.Image | None] = []
    for file in files:
        if file is None:
            pictures.append(None)
            continue
        with Image.open(io.BytesIO(file)) as image:
            image.load()
            pictures.append(image)
    return [sheet_file(each, text) for each in sheets(plot, pictures)]
