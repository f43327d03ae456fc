"""Text to image, image to image, inpainting and their relatives, as a stream of events.

    request and model -> `prepare` -> for each batch: denoise, decode, composite -> `Progress` and `Images`

Noise contract: picture k has seed s + k, and is bit-identical to that picture made alone. On the CPU pictures are
therefore made one at a time, which costs time with small models only (docs/reproducibility.md).

Shapes: B pictures, C H W their channels, height and width; c h w those of latents.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, Unpack

import torch
from torch import Tensor

from .. import __version__
from ..diffusion.samplers import solver
from ..engine.base import Engine, Features
from ..engine.choose import engine_named
from ..engine.threads import threads_of_torch, with_threads
from ..engine.torch import engine_for
from ..errors import InvalidRequest, StableDiffusionError, unknown_choice, what_is
from ..events import Event, Images, Progress
from ..images import XMP, GeneratedImage, Pictures
from ..request.fields import Whole
from ..request.group import current_names
from ..request.metadata import parameters_text
from ..request.names import resolve_sampler
from ..request.request import Request, Settings, with_settings
from ..request.writers.forms import KEY
from .codec import ImageDecoder
from .image import from_model, to_images
from .models import StableDiffusion, as_model
from .prepare import Batch, Plan, prepare
from .process import unknown_option
from .renamed import late_preview
from .tasks.background import composite, matches, warn_mismatch, with_background_words
from .tasks.hires import enlarged
from .tasks.masks import start_latent
from .tasks.seamless import Wrapped, even_poles, sphere_xmp

Output = Literal["pil", "straight", "latent"]
PreviewEvery: TypeAlias = int | Callable[[], bool] | None
OUTPUTS: tuple[Output, ...] = ("pil", "straight", "latent")


def generate(
    model: StableDiffusion | str | Path | None,
    request: Request | str,
    *,
    output: Output = "pil",
    batch: int | None = None,
    engine: Engine | str | None = None,
    preview_every: PreviewEvery = None,
    **options: Any,
) -> Iterator[Event]:
    """Checks everything, then returns the stream: `Progress` after every step, `Images` after every picture or batch.

    model    a loaded model, or the path or name of one; None is the embedded model
    request  a `Request`, or a prompt alone, whose settings may be among the `options`
    output   "pil" Pillow pictures; "straight" also the floats before rounding to 8 bits, in `Images.tensor` [B,C,H,W]
             from 0 to 1; "latent" only the latents [B,c,h,w], which have no background
    batch    pictures denoised together: None means one on a CPU, all on a GPU. With 1 a picture never depends on the
             others, bit for bit; more is faster on a GPU and may differ in the last bits there
    engine   what runs the networks, or its name; None is the model's. What it refuses runs on torch, with a note
    preview_every  steps from one `Progress.preview` to the next; 0 for none; or a function that is asked
             after each step. Left out, `preview` is false, and for one
             version more it can be called, as in the last release
    options  of the sampler, such as `eta`, and `final` (see `DenoisingOptions`)

    Closing the stream stops the work at the next step. InvalidRequest where the request does not fit the model.
    """
    if output not in OUTPUTS:
        raise unknown_choice("output", output, OUTPUTS)
    for name, value, least in (("batch", batch, 1), ("preview_every", preview_every, 0)):
        if value is not None and not callable(value):
            Whole(least, 2**31).check(name, value)
    if engine is not None and not isinstance(engine, (Engine, str)):
        raise InvalidRequest(
            f"engine is {what_is(engine)}; expected an Engine, such as `engine.torch.TORCH`, or a name"
        )
    ready = as_model(model)
    if isinstance(engine, str):
        engine = engine_named(engine)
    if isinstance(request, str):
        options = current_names(options)
        settings = {field.name: options.pop(field.name) for field in _SETTINGS if field.name in options}
        request = Request(request, **settings)
    if not isinstance(request, Request):
        raise InvalidRequest(f"the request is {what_is(request)}; expected a Request, or a prompt alone")
    _check_options(request, ready, options)
    engine = engine or ready.engine
    threads = engine.threads
    with threads_of_torch(threads):
        plan = prepare(ready, request, engine=engine, **options)
    events = _stream(plan, output, batch, preview_every)
    return events if threads is None else with_threads(events, threads)


_SETTINGS = [field for field in dataclasses.fields(Request) if field.kw_only]


def _check_options(request: Request, model: StableDiffusion, options: dict[str, Any]) -> None:
    """InvalidRequest for an option that neither the sampler nor `generate` has."""
    sampler = solver(resolve_sampler(model.defaults.sampler if request.sampler is None else request.sampler).id)
    for name in options:
        if any(name == field.name for field in _SETTINGS):
            raise InvalidRequest(f"{name} belongs in the request: Request(..., {name}=...)")
        if name != "final" and name not in sampler.options:
            raise unknown_option("option of generate", name, sampler, ["final"])


def _stream(
    plan: Plan, output: Output, together: int | None, preview_every: PreviewEvery
) -> Generator[Event, None, None]:
    for batch in plan.batches(together):
        latent = yield from _denoise(plan, batch, preview_every)
        notes = (*batch.prompts.notes, *plan.resolved.notes, *plan.controls.notes, *filter(None, [batch.note]))
        if output == "latent":
            yield Images(images=(), first=batch.first, requests=batch.requests, notes=notes, tensor=latent)
            continue
        straight = decode(plan, latent)
        straight = yield from _match_background(plan, batch, straight, preview_every)
        yield _finish(plan, batch, straight, notes, keep=output == "straight")


def _denoise(plan: Plan, batch: Batch, preview_every: PreviewEvery) -> Generator[Event, None, Tensor]:
    """The progress of all passes of a batch; returns the latents [B,c,h,w]."""
    resolved, network = plan.resolved, plan.model.denoising_process.network
    request, latent, done = resolved.request, plan.init.latent, 0
    for number, (each, settings) in enumerate(zip(batch.passes, resolved.passes, strict=True)):
        later = sum(len(later.sigmas) - 1 for later in batch.passes[number + 1 :] if later.strength)
        if settings.upscaler and latent is not None:
            with Wrapped(request.canvas.wrap):
                latent = enlarged(plan.model, latent, settings.size, settings.upscaler, request.canvas.wrap)
        if each.strength == 0:
            continue
        seeds = [single.seed or 0 for single in batch.requests]
        variations = [single.variation for single in batch.requests]
        source = network.noise(each.sampler, seeds, each.size, request.noise, variations)
        noise = source.start().to(network.device)
        if latent is not None:
            latent = latent.to(noise.device, torch.float32).expand_as(noise)
            latent = latent if each.mask is None else start_latent(latent, each.mask, resolved.fill, noise)
        total = 0
        for step in each.steps(source, noise, latent):
            latent, index, total = step.x, done + step.index + 1, step.total
            preview = partial(plan.model.image_decoder.preview, step.denoised)
            shown = preview_every() if callable(preview_every) else preview_every and index % preview_every == 0
            yield Progress(
                index=index,
                total=done + total + later,
                sigma=step.sigma,
                picture=batch.first,
                pictures=plan.count,
                preview=preview() if shown else late_preview(preview, preview_every),
            )
        done += total
    assert latent is not None  # the first pass starts from noise, or from a latent
    latent = latent.expand(len(batch.requests), -1, -1, -1)
    if not bool(torch.isfinite(latent).all()):
        raise StableDiffusionError(
            f"the model's numbers overflowed in {plan.model.dtype}; load it with dtype='float32', or lower the guidance"
        )
    return latent


def decode(plan: Plan, latent: Tensor) -> Tensor:
    """Latents -> straight pictures [B,C,H,W] on the CPU; edges that meet do so in the decoder too."""
    canvas = plan.resolved.request.canvas
    engine, _ = engine_for(plan.engine, Features(seamless=bool(canvas.wrap)))
    decoder = plan.model.image_decoder
    if plan.resolved.shortcuts.tiny and decoder.tiny is not None:
        decoder = ImageDecoder(decoder.tiny, decoder.latents, decoder.device, decoder.dtype)
    with Wrapped(canvas.wrap):
        picture = decoder.tensor(latent, engine, seamless=bool(canvas.wrap))
    return from_model(even_poles(picture) if canvas.panorama else picture).cpu()


def _match_background(
    plan: Plan, batch: Batch, straight: Tensor, preview_every: PreviewEvery
) -> Generator[Event, None, Tensor]:
    """Pictures that match the background: those that do not are generated once more, with words for it."""
    background = plan.resolved.request.background
    if background is None or not plan.model.has_alpha:
        return straight
    wrong = ~matches(straight, background)
    worded = [with_background_words(request) for request in batch.requests]
    again = {row: request for row, request in enumerate(worded) if request is not None and bool(wrong[row])}
    if again:
        latent = yield from _denoise(plan, plan.batch(batch.first, list(again.values())), preview_every)
        other = decode(plan, latent)
        better = matches(other, background)[:, None, None, None]
        rows = torch.tensor(list(again))
        straight = straight.index_put((rows,), torch.where(better, other, straight[rows]))
    return straight


def _finish(plan: Plan, batch: Batch, straight: Tensor, notes: tuple[str, ...], *, keep: bool) -> Images:
    """Kept pixels put back, the background behind, and what made each picture written into it."""
    background, whole = plan.resolved.request.background, plan.resolved.request.image is None
    straight = plan.init.put_back(straight)
    notes = (*notes, *warn_mismatch(straight, background, whole=whole))
    straight = composite(straight, background, whole=whole, ring=plan.resolved.request.canvas.panorama)
    images, used = [GeneratedImage.of(image) for image in to_images(straight)], plan.used(batch)
    for image, request in zip(images, batch.requests, strict=True):
        image.info[KEY] = parameters_text(request, model_hash=plan.model.hash, version=__version__, used=used)
        if request.canvas.panorama:
            image.info[XMP] = sphere_xmp(*image.size)
    return Images(
        images=tuple(images),
        first=batch.first,
        requests=batch.requests,
        notes=notes,
        tensor=straight if keep else None,
    )


@with_settings
def generate_image(
    prompt: str | Sequence[str],
    *,
    model: StableDiffusion | str | Path | None = None,
    engine: str | None = None,
    callback: Callable[[Progress], object] | None = None,
    **settings: Unpack[Settings],
) -> Any:
    """A picture for a sentence: a Pillow image, or a list of `count` images where `count` is more than 1.

    Settings are the fields of `Request`, explained there; what is left out is the model's own. Groups of settings can
    be given as mappings: `generate_image("a cat", hires={"scale": 1.5}, canvas={"tiling": "x"})`. A list of prompts
    gives the list of the pictures of each, all with these settings. `model` is a loaded model, a path or a name; None
    is the embedded model. `engine` is the name of what runs the networks, if not the model's own. `callback` is called
    with the `Progress` of every step. Each picture carries what made it in `info["parameters"]`, the seed included, and
    `image.save("cat.png")` writes it to the file. Settings without effect are warned of. Raises InvalidRequest and
    ModelFileError, both StableDiffusionError.
    """
    several = isinstance(prompt, Iterable) and not isinstance(prompt, (str, bytes)) and not hasattr(prompt, "shape")
    prompts: list[Any] = list(prompt) if several else [prompt]
    if callback is not None and not callable(callback):
        raise InvalidRequest(f"callback is {what_is(callback)}; expected a function of one argument, a Progress")
    named = str(model) if isinstance(model, (str, os.PathLike)) else None
    requests = [Request(each, model=named, **settings) for each in prompts]  # type: ignore[arg-type]  # Request opens paths, reads mappings
    pictures: list[Any] = []
    said: set[str] = set()
    for request in requests:
        ready = as_model(request.model if named is not None else model)
        for event in generate(ready, request, engine=engine, preview_every=0):
            if isinstance(event, Progress):
                if callback is not None:
                    callback(event)
                continue
            pictures += event.images
            for note in event.notes:
                if note not in said:
                    warnings.warn(note, stacklevel=2)
                said.add(note)
    return pictures[0] if isinstance(prompt, str) and len(pictures) == 1 else Pictures(pictures)
