"""The routes of A1111 that make pictures: txt2img, img2img, and what is asked of them while they run."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request

from ...errors import InvalidRequest
from ...request.request import Request as Wanted
from ..auth import OwnerIs
from ..errors import ApiError
from ..service import Service
from ..settings import ServerSettings
from .answers import Made, generation_answer
from .bodies import Generation, Img2Img, TaskProgress, Txt2Img
from .img2img import fit_pictures, img2img_settings, needs_fitting
from .plot.arguments import is_plot
from .plot.run import plot_answer
from .progress import pending_json, progress_json, task_progress
from .state import WebUI, WebUIIs
from .txt2img import Translated, txt2img_settings

CANCELLED = "cancelled"
FIELDS = {
    "guidance": "cfg_scale",
    "count": "batch_size x n_iter",
    "strength": "denoising_strength",
    "variation strength": "subseed_strength",
    "variation seed": "subseed",
    "hires scale": "hr_scale",
    "hires steps": "hr_second_pass_steps",
    "mask blur": "mask_blur",
    "mask padding": "inpaint_full_res_padding",
    "refiner switch": "refiner_switch_at",
    "control weight": "weight",
    "control start": "guidance_start",
    "control end": "guidance_end",
    "image_guidance": "image_cfg_scale",
}
"""How our sentences begin, and what the client calls that."""


def generating(settings: ServerSettings) -> APIRouter:
    """The routes."""
    routes = APIRouter()
    most = settings.limits.body

    @routes.post("/sdapi/v1/txt2img", max_body_size=most)
    async def txt2img(body: Txt2Img, http: Request, webui: WebUIIs, owner: OwnerIs) -> dict[str, Any]:
        """Pictures of a text: `images` (base64), `parameters` (the fields) and `info` (JSON as text)."""
        return await _answer(body, http, webui, owner)

    @routes.post("/sdapi/v1/img2img", max_body_size=most)
    async def img2img(body: Img2Img, http: Request, webui: WebUIIs, owner: OwnerIs) -> dict[str, Any]:
        """Pictures of a picture and a text; with `mask`, its white part is generated again."""
        return await _answer(body, http, webui, owner)

    @routes.get("/sdapi/v1/progress")
    async def progress(webui: WebUIIs, owner: OwnerIs, skip_current_image: bool = False) -> dict[str, Any]:
        """How far the running job is; `progress` 0.0 and `job_count` 0 when there is none."""
        return await webui.service.call(progress_json, webui.watch, owner, with_image=not skip_current_image)

    @routes.post("/internal/progress")
    async def progress_of_task(body: TaskProgress, webui: WebUIIs, owner: OwnerIs) -> dict[str, Any]:
        """How far a task is, and its newest preview where the client has not got it."""
        return await webui.service.call(task_progress, webui.watch, owner, body)

    @routes.get("/internal/pending-tasks")
    async def pending(webui: WebUIIs, owner: OwnerIs) -> dict[str, Any]:
        """Ids of tasks that wait or run."""
        return await webui.service.call(pending_json, webui.watch, owner)

    @routes.post("/sdapi/v1/interrupt")
    async def interrupt(webui: WebUIIs, owner: OwnerIs) -> dict[str, Any]:
        """End the job that runs, at its next step; its request is answered with what was finished."""
        for job_id in (await webui.service.call(webui.service.queue.state)).running:
            webui.watch.tasks.interrupted.add(job_id)
        ids = await webui.service.call(webui.service.queue.cancel_running, owner)
        webui.watch.tasks.interrupted.intersection_update(ids)
        return {}

    @routes.post("/sdapi/v1/skip")
    async def skip(webui: WebUIIs, owner: OwnerIs) -> dict[str, Any]:
        """Leave out the picture that is being made and go on with the next one of the job."""
        queue = webui.service.queue
        for job_id in (await webui.service.call(queue.state)).running:
            job = await webui.service.call(queue.job, job_id)
            if job.owner == owner and await webui.service.call(queue.skip, job_id):
                webui.watch.tasks.skipped.add(job_id)
        return {}

    return routes


async def _fitted(body: Img2Img, asked: Translated, service: Service) -> Translated:
    """The request with start picture and mask at the size that was asked for."""
    image = await service.open_picture(body.init_images[0], "init_images")
    if not needs_fitting(body, image.size):
        return asked
    limits = service.settings.limits
    for name, value, most in (("width", body.width, limits.side), ("height", body.height, limits.side)):
        if value is not None and not 1 <= value <= most:
            raise InvalidRequest(f"{name} is {value}; expected a whole number from 1 to {most}")
    mask = await service.open_picture(body.mask, "mask") if body.mask else None
    return replace(asked, settings=await service.call(fit_pictures, body, asked.settings, image, mask))


async def _prepared(body: Generation, webui: WebUI) -> tuple[Translated, Wanted]:
    """The body as the queue takes it; InvalidRequest in the client's own words where it cannot be used."""
    service, options = webui.service, await webui.options_of(body)
    if isinstance(body, Img2Img):
        asked = await _fitted(body, img2img_settings(body, options, service.library), service)
    else:
        assert isinstance(body, Txt2Img)
        asked = txt2img_settings(body, options, service.library)
    try:
        await service.call(check_grid, asked, service)
        return asked, await service.request(asked.settings)
    except InvalidRequest as error:
        raise InvalidRequest(in_their_words(str(error))) from None


async def _answer(body: Generation, http: Request, webui: WebUI, owner: str) -> dict[str, Any]:
    """What the request gives; a plot where its script asks for one."""
    if is_plot(body.script_name):
        return await plot_answer(body, lambda cell: _prepared(cell, webui), http, webui, owner)
    asked, request = await _prepared(body, webui)
    return await _generate(body, asked, request, http, webui, owner)


async def _generate(
    body: Generation, asked: Translated, request: Wanted, http: Request, webui: WebUI, owner: str
) -> dict[str, Any]:
    """Run a request through the queue and wait. A client that goes away ends it, unless its pictures are to be kept."""
    service, started = webui.service, time.time()
    job = await service.submit(request, owner, save=body.save_images)
    webui.watch.tasks.add(owner, body.force_task_id, job.id)
    try:
        finished = await service.finished(job.id, None if body.save_images else http)
        job = finished.job
    except ApiError as error:
        if error.code != CANCELLED or job.id not in webui.watch.tasks.interrupted:
            raise
        job = await service.call(service.queue.job, job.id)
    finally:
        webui.watch.tasks.forget(job.id)
    pictures = await service.call(service.queue.pictures_of, job.id)
    files = [await service.call(service.queue.gallery.read, picture.id) for picture in pictures]
    made = Made(pictures=pictures, files=files, notes=job.notes, started=started)
    return await service.call(generation_answer, body, asked, made)


def check_grid(asked: Translated, service: Service) -> None:
    """InvalidRequest where a side is no multiple of the model's factor: before the request waits in the queue."""
    name = asked.settings.get("model")
    entry = service.library.default_model() if name is None else service.library.models.find(name)
    factor = service.facts.of(entry).factor
    for what in ("width", "height"):
        side = asked.settings.get(what)
        if side is not None and side > 0 and side % factor:
            near = max(1, round(side / factor)) * factor
            raise InvalidRequest(f"{what} is {side}; expected a multiple of {factor}, the nearest is {near}")


def in_their_words(sentence: str) -> str:
    """The sentence with the client's name of the field at its beginning: "guidance is 500" -> "cfg_scale is 500"."""
    for ours, theirs in FIELDS.items():
        if sentence.startswith(f"{ours} is "):
            return f"{theirs} is {sentence.removeprefix(f'{ours} is ')}"
    return sentence
