"""Text to image, image to image, inpainting and their relatives, as a stream of events.

A task is a choice of three values: the latent to start from, the slice of noise levels, and the wrapped denoiser; they
meet in `DenoisingProcess`. Noise contract: picture k has seed s + k, and is bit-identical to that picture made alone.
On the CPU pictures are therefore made one at a time, which costs time with small models only (docs/reproducibility.md).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack

import torch
from PIL import Image
from torch import Tensor

from .. import __version__
from ..diffusion.samplers import solver
from ..diffusion.schedule import FlowSchedule
from ..errors import InvalidRequest, StableDiffusionError, unknown_choice
from ..request.metadata import KEY, parameters_text
from ..request.names import SAMPLERS, resolve_sampler
from ..request.request import Event, Images, Progress, Request, Settings
from ..text.prompt import split_and
from .image import from_model, to_images
from .micro_conditioning import SizeConditioning
from .models import StableDiffusion, load
from .output import XMP
from .passes import PassStep, grid_of, passes
from .prompts import Words, chosen, styled, varies, words
from .resolve import resolve
from .tasks.background import asked_again, background_notes, check_model, has_alpha, missed, on_background, suits
from .tasks.control_files import RequestControls, request_controls
from .tasks.init_image import Start, start
from .tasks.refiner import refining_model
from .tasks.seamless import Wrapped, even_poles, sphere_xmp
from .tasks.told_picture import extra_of, part_of
from .wildcards import WildcardFolder

Output = Literal["pil", "straight", "latent"]
OUTPUTS: tuple[Output, ...] = ("pil", "straight", "latent")


@dataclass(eq=False)
class _Job:
    """A resolved request on a model, and its prompts: encoded once, or where they hold choices, picture by picture."""

    model: StableDiffusion
    refiner: StableDiffusion | None
    request: Request
    start: Start
    controls: RequestControls
    options: Mapping[str, Any]
    notes: tuple[str, ...]
    output: Output
    varies: bool
    folder: WildcardFolder | None
    _known: dict[tuple[str, str], Words] = field(default_factory=dict)

    def single(self, index: int) -> Request:
        """What makes picture `index` alone, its prompts chosen."""
        return chosen(self.request.one(index), self.folder)

    def words(self, request: Request) -> Words:
        """The prompts of a picture; those of the last one are remembered."""
        key = (request.prompt, request.negative_prompt)
        if key not in self._known:
            self._known.clear()
            self._known[key] = words(self.model, request, self.refiner)
        return self._known[key]

    def steps(self, requests: Sequence[Request]) -> Iterator[PassStep]:
        """The steps of these pictures, made with the request's adapters."""
        ready = self.words(requests[0])
        options = {**self.options, "sides": self.controls.sides}
        return ready.adapters.denoising(passes(self.model, requests, ready, self.start, options))


def generate(
    model: StableDiffusion,
    request: Request,
    *,
    output: Output = "pil",
    batch: int | None = None,
    **options: Any,
) -> Iterator[Event]:
    """Checks everything, then returns the stream: `Progress` after every step, `Images` after every picture or batch.

    output   "pil" Pillow pictures; "straight" also the floats before rounding to 8 bits, in `Images.tensor` [B,C,H,W]
             from 0 to 1; "latent" only the latents [B,c,h,w], which have no background
    batch    pictures denoised together: None means one on a CPU, all on a GPU. With 1 a picture never depends on the
             others, bit for bit; more is faster on a GPU and may differ in the last bits there
    options  of the sampler, such as `eta`, and `final` (see `DenoisingProcess`)

    Closing the stream stops the work at the next step. InvalidRequest where the request does not fit the model.
    """
    if output not in OUTPUTS:
        raise unknown_choice("output", output, OUTPUTS)
    if batch is not None and batch < 1:
        raise InvalidRequest(f"batch is {batch}; expected at least 1")
    check_model(model, request.background)
    asked = styled(request)
    resolved = resolve(
        asked,
        defaults=model.defaults,
        grid=grid_of(model),
        name=model.name,
        automatic=model.automatic_schedule,
        edits=model.denoising_process.edits,
    )
    wildcards, refiner = resolved.prompting.wildcards_dir, None
    if resolved.refiner is not None:
        refiner = refining_model(model, resolved.refiner.model)
        resolved = replace(resolved, refiner=replace(resolved.refiner, model=refiner.name))
    begun = start(model, resolved)
    controls = _controls(model, resolved, begun)
    job = _Job(
        model=model,
        refiner=refiner,
        request=resolved,
        start=begun,
        controls=controls,
        options=options,
        notes=(*_ignored(asked, resolved, model), *background_notes(model, asked), *controls.notes),
        output=output,
        varies=varies(resolved),
        folder=None if wildcards is None else WildcardFolder(wildcards),
    )
    job.steps([job.single(0)])  # checks sampler, levels, options and prompts now: nothing is painted before it is asked
    together = batch if batch is not None else 1 if model.device.type == "cpu" else resolved.count
    return _stream(job, 1 if job.varies else together)


def _stream(job: _Job, size: int) -> Iterator[Event]:
    count = job.request.count
    for first in range(0, count, size):
        requests = [job.single(k) for k in range(first, min(first + size, count))]
        latent = yield from _painted(job, requests, first)
        if job.output != "latent":
            latent = yield from _suited(job, requests, latent, first)
        yield _finish(job, requests, latent, first)


def _painted(job: _Job, requests: Sequence[Request], first: int) -> Generator[Event, None, Tensor]:
    """Progress of these pictures, which returns their latents [B,c,h,w]."""
    latent = None if job.start.latent is None else job.start.latent.expand(len(requests), -1, -1, -1)
    for done in job.steps(requests):
        latent = done.step.x
        yield Progress(
            index=done.index,
            total=done.total,
            sigma=done.step.sigma,
            picture=first,
            pictures=job.request.count,
            preview=partial(job.model.image_decoder.preview, done.step.denoised),
        )
    assert latent is not None
    return latent


def _suited(job: _Job, requests: Sequence[Request], latent: Tensor, first: int) -> Generator[Event, None, Tensor]:
    """Latents whose pictures suit the background: those that do not are painted once more, with words for it."""
    background, worded = job.request.background, [asked_again(request) for request in requests]
    if background is None or not has_alpha(job.model):
        return latent
    wrong = ~suits(_decoded(job.model, requests[0], latent), background)
    again = {row: each for row, each in enumerate(worded) if each is not None and bool(wrong[row])}
    if not again:
        return latent
    anew = yield from _painted(job, list(again.values()), first)
    better = suits(_decoded(job.model, requests[0], anew), background).to(latent.device)
    rows = list(again)
    return latent.index_put(
        (torch.tensor(rows, device=latent.device),),
        torch.where(better[:, None, None, None], anew, latent[rows]),
    )


def _finish(job: _Job, requests: Sequence[Request], latent: Tensor, first: int) -> Images:
    """Latents to pictures, kept pixels put back, and what made each picture written into it."""
    model, ready = job.model, job.words(requests[0])
    if not bool(torch.isfinite(latent).all()):
        raise StableDiffusionError(
            f"the model's numbers overflowed in {model.dtype}; load it with dtype='float32', or lower the guidance"
        )
    made: dict[str, Any] = {"first": first, "requests": tuple(requests)}
    notes = (*ready.notes, *job.notes)
    if job.output == "latent":
        return Images(images=(), tensor=latent, notes=notes, **made)
    used = replace(
        ready.adapters.used,
        controls=job.controls.entries,
        refiner_hash=None if job.refiner is None else job.refiner.hash,
    )
    background, painted = job.request.background, job.request.image is None
    straight = job.start.finished(_decoded(model, requests[0], latent))
    made["notes"] = (*notes, *missed(straight, background, painted=painted))
    straight = on_background(straight, background, painted=painted)
    images = to_images(straight)
    for image, each in zip(images, requests, strict=True):
        image.info[KEY] = parameters_text(each, model_hash=model.hash, version=__version__, used=used)
        if each.canvas.panorama:
            image.info[XMP] = sphere_xmp(*image.size)
    return Images(images=tuple(images), tensor=straight if job.output == "straight" else None, **made)


def _controls(model: StableDiffusion, request: Request, begun: Start) -> RequestControls:
    """The side networks, which see of their pictures what is painted."""
    closer = tuple(
        each if each.image is None else replace(each, image=part_of(each.image, request, begun.box))
        for each in request.controls
    )
    return request_controls(model, replace(request, controls=closer))


def _decoded(model: StableDiffusion, request: Request, latent: Tensor) -> Tensor:
    """Straight pictures [B,C,H,W]; edges that meet do so in the decoder too."""
    with Wrapped(request.canvas.wrap):
        picture = model.image_decoder.tensor(latent)
    if request.canvas.panorama:
        picture = even_poles(picture)
    return from_model(picture).cpu()


def _ignored(asked: Request, request: Request, model: StableDiffusion) -> Iterator[str]:
    """Settings that were given and have no effect."""
    extra, told = extra_of(model), model.denoising_process.guides_itself
    assert request.sampler is not None and request.width is not None and request.height is not None  # resolved
    info = solver(resolve_sampler(request.sampler).id)
    for name in asked.noise.options:
        if name not in info.options:
            yield f"{name} is ignored: the sampler {SAMPLERS[info.id].label} has no such setting"
    if asked.variation.seed is not None and asked.variation.strength == 0:
        yield "the variation seed is ignored: its strength is 0"
    yield from _not_of_this_model(asked, model)
    window = request.canvas.window
    if window is not None and request.hires is None and window >= max(request.width, request.height):
        yield f"window is ignored: the canvas is no larger than {window} pixels"
    if asked.depth is not None and extra != "depth":
        yield "depth is ignored: the model is not guided by depth"
    if extra == "picture":
        for name in ("guidance_rescale", "guidance_interval"):
            if getattr(asked, name):
                yield f"{name} is ignored: the model is guided by the picture that it edits too"
        return
    if asked.image_guidance is not None:
        yield "image_guidance is ignored: the model does not edit pictures"
    if (request.guidance == 1 or told) and not info.paired and len(split_and(request.prompt)) == 1:
        given = {
            "negative_prompt": bool(asked.negative_prompt),
            "guidance_rescale": asked.guidance_rescale > 0,
            "guidance_interval": asked.guidance_interval is not None,
        }
        for name in itertools.compress(given, given.values()):
            yield f"{name} is ignored: {'the network is told its guidance' if told else 'guidance is 1'}"


def _not_of_this_model(asked: Request, model: StableDiffusion) -> Iterator[str]:
    """Settings that models of other kinds have."""
    if asked.noise.shift is not None and not isinstance(model.parts.schedule, FlowSchedule):
        yield "shift is ignored: the model is no flow model"
    if asked.told_size != SizeConditioning() and not model.parts.size_numbers and asked.refiner is None:
        yield "told_size is ignored: the model is told no sizes"
    if asked.refiner is not None and (asked.controls or asked.loras):
        yield "the refiner paints without the controls and LoRAs, which were made for the base"


def generate_image(
    prompt: str, *, model: StableDiffusion | str | Path | None = None, **settings: Unpack[Settings]
) -> Any:
    """A picture for a sentence: a Pillow image, or a list of `count` images where `count` is more than 1.

    Settings are the fields of `Request`, explained there; what is left out is the model's own. Groups of settings can
    be given as mappings: `generate_image("a cat", hires={"scale": 1.5}, canvas={"tiling": "x"})`. `model` is a loaded
    model, a path or a name; None is the embedded model. Each picture carries what made it in `info["parameters"]`, the
    seed included, and `save_image` writes it to the file. Settings without effect are warned of. Raises InvalidRequest
    and ModelFileError, both StableDiffusionError.
    """
    loaded = isinstance(model, StableDiffusion)
    named = None if loaded or model is None else str(model)
    request = Request(prompt, model=named, **settings)  # type: ignore[arg-type]  # Request opens paths, reads mappings
    ready = model if isinstance(model, StableDiffusion) else load(request.model)
    pictures, notes = _drained(generate(ready, request))
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return pictures if request.count > 1 else pictures[0]


def _drained(events: Iterator[Event]) -> tuple[list[Image.Image], tuple[str, ...]]:
    """All pictures of a stream, and its notes."""
    pictures: list[Image.Image] = []
    notes: dict[str, None] = {}
    for event in events:
        if isinstance(event, Images):
            pictures += event.images
            notes |= dict.fromkeys(event.notes)
    return pictures, tuple(notes)
