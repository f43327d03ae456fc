"""What every API asks: requests made of what clients write, run through the queue, and waited for.

Queue, gallery and worker are those of `jobs`, which knows nothing of HTTP; this adds the lists of names, the limits,
pictures as clients send them, and the way between blocking calls and the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

from fastapi import Depends, WebSocket
from fastapi.requests import HTTPConnection
from PIL.Image import Image as Pillow
from starlette.concurrency import run_in_threadpool

from ..adapters.folder import joined
from ..errors import InvalidRequest, unknown_choice
from ..images import thumbnail_bytes
from ..jobs import FINISHED, Job, JobError, JobEvent, JobService, Picture
from ..jobs import Limits as QueueLimits
from ..jobs.worker import JobRunner
from ..pipeline.tasks.wildcards import WildcardFolder
from ..request.control import Control
from ..request.lora import Lora
from ..request.request import Request
from ..request.settings import RESAMPLERS, UPSCALERS
from ..runner import LocalRunner, device_runners
from ..upscaling.job import KIND as UPSCALE
from ..upscaling.job import target_of, upscale_handler
from ..upscaling.picture import check_size
from .content import runners_of
from .errors import ApiError, Errors
from .library import Entry, Library, trigger_words
from .limits import check_limits
from .model_facts import FactsOfModels
from .observe.log import note
from .observe.metrics import Metrics
from .pictures import INPUT, PICTURE, decode, from_text, written_png
from .settings import ServerSettings

if TYPE_CHECKING:
    from PIL import Image
    from starlette.requests import Request as HttpRequest

P = ParamSpec("P")
T = TypeVar("T")
HASH = "sha256:"
WATCH = 1.0
"""Seconds between two looks at whether the client of a blocking call is still there."""


@dataclass(frozen=True)
class Finished:
    """A job that is done: its pictures in order, and how to read their files."""

    job: Job
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...]
    service: Service

    async def read(self, number: int = 0) -> bytes:
        """The bytes of a picture's file, as they were written."""
        return await self.service.call(self.service.queue.gallery.read, self.pictures[number].id)


class Service:
    """The server's work, shared by all routers.

    runners   one for each job that may run at once; () is one on the settings' device
    """

    def __init__(self, settings: ServerSettings, errors: Errors, runners: Sequence[JobRunner] = ()) -> None:
        self.settings, self.errors = settings, errors
        self.library = Library(settings)
        given = tuple(runners) or device_runners(
            devices_of(settings.device), dtype=settings.dtype, share=settings.share
        )
        self.runners: tuple[JobRunner, ...] = runners_of(given, settings)
        here = next((each for each in given if isinstance(each, LocalRunner)), None)
        # of live frames, which are not in the queue
        self.runner = here or LocalRunner(device=settings.device, dtype=settings.dtype)
        limits = QueueLimits(queue=settings.limits.queue, owner=settings.limits.queue_owner)
        self.queue = JobService(
            settings.data,
            database=settings.database or None,
            runners=self.runners,
            limits=limits,
            handlers={UPSCALE: upscale_handler(self.library.upscaler_path, settings.device)},
            paused=settings.paused,
        )
        self.facts = FactsOfModels()
        self.metrics = Metrics(lambda: self.queue.state().queued, lambda: len(self.queue.state().running))
        self.streams, self.closing = 0, False
        self.sockets: dict[str, WebSocket] = {}
        self._words: dict[Path, list[str]] = {}
        self._progress: dict[str, Mapping[str, Any]] = {}

    def release(self) -> None:
        """Give back the memory of models on every device."""
        for runner in self.runners:
            runner.release()

    def public(self, text: str) -> str:
        """A sentence without folders of this machine."""
        return self.errors.public(text)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a blocking function gives, called in a thread."""
        return await run_in_threadpool(function, *args, **kwargs)

    # --- requests -----------------------------------------------------------------------------------------------------

    async def open_picture(self, given: object, what: str = "image") -> Image.Image:
        """A picture of text or bytes as clients send them; InvalidRequest where it cannot be used."""
        return await self.call(self.picture, given, what)

    def picture(self, given: object, what: str = "image") -> Image.Image:
        """The same, blocking. Text is base64, a data URI, "sha256:HASH" of an upload, or "picture:ID" of a picture."""
        most = self.settings.limits.image_pixels
        if isinstance(given, Pillow):  # opened already
            return given
        if isinstance(given, str) and given.startswith((HASH, INPUT)):
            return decode(self.queue.inputs.read(given.partition(":")[2]), what, most)
        if isinstance(given, str) and given.startswith(PICTURE):
            return decode(self.queue.gallery.read(given.removeprefix(PICTURE)), what, most)
        return decode(given if isinstance(given, bytes) else from_text(given, what), what, most)

    async def request(self, data: Mapping[str, Any]) -> Request:
        """A request of settings as clients write them, admitted; InvalidRequest in a sentence else."""
        return await self.call(self._request, data)

    def _request(self, data: Mapping[str, Any]) -> Request:
        values = dict(data)
        for name in ("image", "mask", "depth"):
            if values.get(name) is not None:
                values[name] = self.picture(values[name], name)
        values["loras"] = tuple(map(self._lora, values.pop("loras", None) or ()))
        values["controls"] = tuple(map(self._control, values.pop("controls", None) or ()))
        refiner = values.get("refiner")
        if isinstance(refiner, Mapping) and "model" in refiner:
            values["refiner"] = {**refiner, "model": model_path(self.library.models.find(refiner["model"]))}
        if isinstance(hires := values.get("hires"), Mapping) and hires.get("upscaler") is not None:
            values["hires"] = {**hires, "upscaler": self.hires_upscaler(hires["upscaler"])}
        if "prompt" not in values:
            raise InvalidRequest("there is no prompt; expected a few words that say what to show")
        return self.admit(Request(**values))

    def admit(self, request: Request) -> Request:
        """The request with the server's folders and its model's path; InvalidRequest where it is beyond a limit.

        `model` is a name of the list, or None for the server's own.
        """
        settings = self.settings
        entry = self.library.default_model() if request.model is None else self.library.models.find(request.model)
        prompting = replace(request.prompting, wildcards_dir=settings.wildcards, styles_file=settings.styles_file)
        request = replace(
            request,
            model=model_path(entry),
            lora_dir=joined(settings.loras),
            embeddings_dir=joined(settings.embeddings),
            prompting=prompting,
        )
        size, steps = self.usual(entry)
        check_limits(request, settings.limits, size, steps)
        return request

    def hires_upscaler(self, name: str) -> str:
        """What a request holds for an upscaler of the second pass: a name of its own, or the path of the list's file.

        InvalidRequest with the nearest name where there is none.
        """
        files = self.library.upscalers.entries()
        own = {known.casefold(): known for known in UPSCALERS}.get(name.strip().casefold())
        if own is not None:
            return own
        if not files:
            raise unknown_choice("hires upscaler", name[:80], UPSCALERS)
        return str(self.library.upscaler_path(name))

    def usual(self, entry: Entry) -> tuple[tuple[int, int], int]:
        """Size and steps of a model where a request leaves them out, as far as they are known without loading it."""
        usual = self.facts.of(entry).defaults
        return (usual.width, usual.height), usual.steps

    def _lora(self, data: Mapping[str, Any]) -> Lora:
        path = self.library.loras.find(data["name"]).path
        assert path is not None  # only models are without one
        return Lora.of((path, data.get("strength", 1.0), data.get("text_strength")))

    def _control(self, data: Mapping[str, Any]) -> Control:
        values = dict(data)
        path = self.library.controls.find(values.pop("name")).path
        assert path is not None
        if values.get("image") is not None:
            values["image"] = self.picture(values["image"], "control image")
        return Control(path, **values)

    # --- the queue ----------------------------------------------------------------------------------------------------

    async def submit(self, request: Request, owner: str, **options: Any) -> Job:
        """Put an admitted request into the queue; `options` are those of `JobService.submit`."""
        return await self.call(self.queue.submit, request, owner=owner, **options)

    async def upscale(self, image: Image.Image, body: Mapping[str, Any], owner: str, **options: Any) -> Job:
        """Put the enlarging of a picture into the queue; `body` as in `upscaling.job`, without the picture.

        InvalidRequest for an upscaler that there is not, or a picture beyond this server's limits.
        """
        return await self.call(self.submit_upscale, image, body, owner, **options)

    def submit_upscale(self, image: Image.Image, body: Mapping[str, Any], owner: str, **options: Any) -> Job:
        """The same, blocking."""
        found, limits = dict(body), self.settings.limits
        for key in ("upscaler", "second"):
            if found.get(key) is not None:
                found[key] = self.upscaler_name(found[key])
        check_size(target_of(found).of(image.size), limits.side, limits.pixels)
        digest = self.queue.upload(written_png(image))
        return self.queue.submit({"image": HASH + digest, **found}, owner=owner, kind=UPSCALE, **options)

    def enlarged(self, image: Image.Image, name: str, size: tuple[int, int], *, owner: str) -> Image.Image:
        """A picture enlarged to a size through the queue, blocking; ApiError where that fails or is cancelled."""
        body = {"upscaler": name, "width": size[0], "height": size[1], "crop": True}
        job = self.queue.wait(self.submit_upscale(image, body, owner, save=False).id)
        if job.state != "done":
            raise failure(job, refused=self.queue.was_refused(job.id))
        data = self.queue.gallery.read(self.queue.pictures_of(job.id)[0].id)
        return decode(data, "the enlarged picture", max(len(data), size[0] * size[1]))

    def upscaler_name(self, name: str) -> str:
        """The name of a resampling filter or an upscaler of the list, in any case; InvalidRequest else."""
        own = {known.casefold(): known for known in RESAMPLERS}.get(str(name).strip().casefold())
        return self.library.upscalers.find(name).name if own is None else own

    async def run(
        self, request: Request, owner: str, http: HttpRequest | None = None, *, save: bool = True, **options: Any
    ) -> Finished:
        """Submit and wait to the end. Where the client of `http` goes away, the job is cancelled.

        ApiError where the job fails or is cancelled.
        """
        job = await self.submit(request, owner, save=save, **options)
        return await self.finished(job.id, http)

    async def finished(self, job_id: str, http: HttpRequest | None = None) -> Finished:
        """Wait for a job; cancelled where the client of `http` goes away."""
        with self.queue.subscribe(job_id, after=0) as events:
            job = await self.call(self.queue.job, job_id)
            while not job.is_finished:
                event = await events.next(WATCH)
                if event is None or events.is_over:
                    job = await self.call(self.queue.job, job_id)
                if http is not None and await http.is_disconnected():
                    await self.cancel_quietly(job_id)
                    raise ApiError(499, "the client went away", code="cancelled")
        if job.state != "done":
            raise failure(job, refused=self.queue.was_refused(job.id))
        pictures = await self.call(self.queue.pictures_of, job_id)
        return Finished(job, tuple(pictures), job.notes, self)

    def queue_cancel(self, job_id: str) -> None:
        """The same at once, for the end of a task that may not wait."""
        with suppress(JobError):
            self.queue.cancel(job_id)

    async def cancel_quietly(self, job_id: str) -> None:
        """Cancel a job that may have ended."""
        try:
            await self.call(self.queue.cancel, job_id)
        except JobError:
            pass

    async def follow(self, job_id: str, *, previews: bool = False, after: int = 0) -> AsyncIterator[JobEvent]:
        """Events of a job to its end."""
        with self.queue.subscribe(job_id, after=after, previews=previews) as events:
            async for event in events:
                yield event

    def progress(self, job_id: str) -> Mapping[str, Any] | None:
        """How far a running job is."""
        return self._progress.get(job_id)

    async def watch(self) -> None:
        """Count what ends, and remember how far each job is; runs as long as the server does."""
        with self.queue.subscribe() as events:
            async for event in events:
                if event.kind == "progress":
                    self._progress[event.job] = event.data
                elif event.kind in FINISHED:
                    self._progress.pop(event.job, None)
                    self.metrics.jobs.labels(event.kind).inc()
                    note("job", id=event.job, state=event.kind)
                elif event.kind == "picture":
                    self.metrics.pictures.inc()

    # --- lists --------------------------------------------------------------------------------------------------------

    def kept_words(self, entry: Entry) -> list[str]:
        """Trigger words of a LoRA, read once."""
        if entry.path is None:
            return []
        if entry.path not in self._words:
            self._words[entry.path] = trigger_words(entry.path)
        return self._words[entry.path]

    def picture_upscalers(self) -> list[str]:
        """Names of what enlarges finished pictures."""
        return [*RESAMPLERS, *self.library.upscalers.entries()]

    def wildcard_names(self) -> list[str]:
        """Names of the wildcards that prompts may use."""
        if self.settings.wildcards is None:
            return []
        try:
            return list(WildcardFolder(self.settings.wildcards).files())
        except InvalidRequest:  # the folder is gone: a list without it, rather than no list
            return []

    def small_file(self, path: Path) -> bytes:
        """A small WebP of a picture that lies beside a model, made again, for nothing is served as it came."""
        data = path.read_bytes() if path.stat().st_size <= self.settings.limits.body else b""
        return thumbnail_bytes(decode(data, "the preview", self.settings.limits.image_pixels), 256)

    def start(self) -> None:
        """Start the workers."""
        self.queue.start()

    def close(self) -> None:
        """Stop at the next step; jobs that run wait again when the server starts."""
        self.closing = True
        self.queue.close()


def failure(job: Job, *, refused: bool = False) -> ApiError:
    """A job that did not end well, as an answer; `refused` where what it asks for cannot be used."""
    if job.state == "cancelled":
        return ApiError(409, f"the job {job.id} was cancelled", code="cancelled")
    sentence = job.error or f"the job {job.id} is {job.state}"
    return ApiError(400 if refused else 500, sentence, code="" if refused else job.state)


def model_path(entry: Entry) -> str:
    """What a request holds for a model of the list."""
    return entry.name if entry.path is None else str(entry.path)


def get_service(connection: HTTPConnection) -> Service:
    """The service of the application that is asked."""
    found: Service = connection.app.state.service
    return found


def state_of(connection: HTTPConnection, name: str, make: Callable[[], T]) -> T:
    """What an API keeps in the application that is asked, under a name of its own; made when it is first wanted."""
    state = connection.app.state
    if getattr(state, name, None) is None:
        setattr(state, name, make())
    found: T = getattr(state, name)
    return found


ServiceIs = Annotated[Service, Depends(get_service)]
"""A parameter of a route that is the service."""


def devices_of(device: str) -> tuple[str, ...]:
    """Devices as the setting has them; () is what the machine has."""
    names = tuple(name.strip() for name in device.split(",") if name.strip())
    return () if names in ((), ("auto",)) else names
