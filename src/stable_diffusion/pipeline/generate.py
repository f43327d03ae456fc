"""Text to image, image to image and inpainting, as a stream of events.

A task is a choice of three values: the latent to start from, the slice of noise levels, and the wrapped denoiser; they
meet in `DenoisingProcess`. Noise contract: picture k has seed s + k, and is bit-identical to that picture made alone.
On the CPU pictures are therefore made one at a time, which costs time with small models only (docs/reproducibility.md).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from .. import __version__
from ..diffusion.samplers import resolve_sampler
from ..errors import InvalidRequest, StableDiffusionError, unknown_choice
from ..types import Conditioning, Step
from .adapters import RequestAdapters, request_adapters
from .image import cover, latent_mask, mask_tensor, put_back, to_images, to_model, to_straight
from .metadata import KEY, parameters_text
from .model import StableDiffusion, load
from .request import Event, Images, Progress, Request, resolve
from .request_controls import request_controls
from .told_picture import extra_of, told_depth, told_picture

Output = Literal["pil", "straight", "latent"]
OUTPUTS: tuple[Output, ...] = ("pil", "straight", "latent")


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What an input picture gives: itself, its latent, the mask in pixels and the mask in latents; None without one."""

    original: Tensor | None = None
    latent: Tensor | None = None
    mask: Tensor | None = None
    latent_mask: Tensor | None = None


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
             from 0 to 1; "latent" only the latents [B,c,h,w]
    batch    pictures denoised together: None means one on a CPU, all on a GPU. With 1 a picture never depends on the
             others, bit for bit; more is faster on a GPU and may differ in the last bits there
    options  of the sampler, such as `eta`, and `final` (see `DenoisingProcess`)

    Closing the stream stops the work at the next step. InvalidRequest where the request does not fit the model.
    """
    if output not in OUTPUTS:
        raise unknown_choice("output", output, OUTPUTS)
    if batch is not None and batch < 1:
        raise InvalidRequest(f"batch is {batch}; expected at least 1")
    asked = request
    request = resolve(
        asked,
        defaults=model.defaults,
        factor=model.factor,
        name=model.name,
        automatic=model.automatic_schedule,
    )
    encoder, adapters = model.text_encoder, request_adapters(model, request)
    with adapters.encoding():
        prompt = encoder.encode(adapters.prompt, clip_skip=request.clip_skip)
        negative = encoder.encode(adapters.negative_prompt, clip_skip=request.clip_skip, negative=True)
    notes = [note for note in (prompt.note(), negative.note(), *_ignored(asked, request)) if note is not None]
    controls = request_controls(model, request)
    notes += [*adapters.notes, *controls.notes]
    adapters = replace(adapters, used=replace(adapters.used, controls=controls.entries))
    edits = model.denoising_process.edits
    if edits and asked.strength is None:  # such a model begins from pure noise, and is told the picture
        request = replace(request, strength=None if request.image is None else 1.0)
    canvas = Canvas() if edits and asked.strength is None else _canvas(model, request)
    image = _image_conditioning(model, request, canvas)
    conditionings = [replace(each.conditioning, image=image) for each in (prompt, negative)]
    size = batch if batch is not None else 1 if model.device.type == "cpu" else request.count
    run = partial(_steps, model, request, conditionings, canvas, {**options, "sides": controls.sides})
    run(range(1))  # checks sampler, schedule, levels and options now: nothing is computed before the first step
    return _stream(model, request, canvas, adapters, run, size, output, tuple(notes))


def _stream(
    model: StableDiffusion,
    request: Request,
    canvas: Canvas,
    adapters: RequestAdapters,
    run: Callable[[range], Iterator[Step]],
    size: int,
    output: Output,
    notes: tuple[str, ...],
) -> Iterator[Event]:
    for first in range(0, request.count, size):
        indices = range(first, min(first + size, request.count))
        latent = None if canvas.latent is None else canvas.latent.expand(len(indices), -1, -1, -1)
        for step in adapters.denoising(run(indices)):
            latent = step.x
            yield Progress(
                index=step.index + 1,
                total=step.total,
                sigma=step.sigma,
                picture=first,
                pictures=request.count,
                preview=partial(model.image_decoder.preview, step.denoised),
            )
        assert latent is not None
        yield _finish(model, request, canvas, adapters, latent, indices, output, notes)


def _steps(
    model: StableDiffusion,
    request: Request,
    conditionings: list[Conditioning],
    canvas: Canvas,
    options: Mapping[str, Any],
    indices: range,
) -> Iterator[Step]:
    """The steps of the pictures `indices` of a resolved request."""
    assert request.width is not None and request.height is not None and request.seed is not None
    return model.denoising_process(
        conditionings[0],
        conditionings[1],
        seed=[request.seed + k for k in indices],
        size=(request.height // model.factor, request.width // model.factor),
        steps=request.steps,
        guidance=request.guidance,
        sampler=request.sampler,
        schedule=request.schedule,
        latent=canvas.latent,
        strength=1.0 if request.strength is None else request.strength,
        mask=canvas.latent_mask,
        rescale=request.guidance_rescale,
        interval=request.guidance_interval,
        image_guidance=request.image_guidance,
        **options,
    )


def _finish(
    model: StableDiffusion,
    request: Request,
    canvas: Canvas,
    adapters: RequestAdapters,
    latent: Tensor,
    indices: range,
    output: Output,
    notes: tuple[str, ...],
) -> Images:
    """Latents to pictures, kept pixels put back, and what made each picture written into it."""
    if not bool(torch.isfinite(latent).all()):
        raise StableDiffusionError(
            f"the model's numbers overflowed in {model.dtype}; load it with dtype='float32', or lower the guidance"
        )
    requests = tuple(request.one(k) for k in indices)
    if output == "latent":
        return Images(images=(), first=indices[0], requests=requests, notes=notes, tensor=latent)
    straight = model.image_decoder.straight(latent).cpu()
    if canvas.mask is not None and canvas.original is not None:
        straight = put_back(straight, canvas.original.expand(len(straight), -1, -1, -1), canvas.mask)
    images = to_images(straight)
    for image, each in zip(images, requests, strict=True):
        image.info[KEY] = parameters_text(each, model_hash=model.hash, version=__version__, used=adapters.used)
    tensor = straight if output == "straight" else None
    return Images(images=tuple(images), first=indices[0], requests=requests, notes=notes, tensor=tensor)


def _canvas(model: StableDiffusion, request: Request) -> Canvas:
    """The input picture and mask at the size of the request, and their latents."""
    if request.image is None:
        return Canvas()
    assert request.width is not None and request.height is not None
    image = cover(request.image, request.width, request.height)
    latent = model.image_encoder(image)
    if request.mask is None:
        return Canvas(latent=latent)
    mask = mask_tensor(cover(request.mask, request.width, request.height))
    return Canvas(
        original=to_straight(image),
        latent=latent,
        mask=mask,
        latent_mask=latent_mask(mask, model.factor).to(latent.device),
    )


def _image_conditioning(model: StableDiffusion, request: Request, canvas: Canvas) -> Tensor | None:
    """Inpainting networks are told the mask and the latent of the picture with the masked part grey: [1, 1 + c, h, w].

    Without a mask everything is masked. None for networks that take nothing but the latent.
    """
    assert request.width is not None and request.height is not None
    size, extra = (request.width, request.height), extra_of(model)
    if extra == "nothing":
        return None
    if extra == "picture":
        if request.image is None:
            raise InvalidRequest("this model edits pictures (instruct-pix2pix); give the picture as image")
        return told_picture(model, request.image, *size)
    if extra == "depth":
        if request.depth is None:
            raise InvalidRequest("this model is guided by depth; give a depth map, near is white, as depth")
        return told_depth(model, request.depth, *size)
    pixels = torch.zeros(1, model.parts.vae.config.image_channels, request.height, request.width)
    mask = torch.ones(1, 1, request.height // model.factor, request.width // model.factor)
    if request.image is not None and canvas.mask is not None and canvas.latent_mask is not None:
        whole = to_model(cover(request.image, request.width, request.height), pixels.shape[1])
        pixels, mask = torch.where(canvas.mask >= 0.5, pixels, whole), canvas.latent_mask
    latent = model.image_encoder(pixels)
    return torch.cat([mask.to(latent), latent], dim=1)


def _ignored(asked: Request, request: Request) -> Iterator[str]:
    """Settings that were given and have no effect."""
    assert request.sampler is not None  # of a resolved request
    if request.guidance == 1 and not resolve_sampler(request.sampler).sampler.paired:
        given = {
            "negative_prompt": bool(asked.negative_prompt),
            "guidance_rescale": asked.guidance_rescale > 0,
            "guidance_interval": asked.guidance_interval is not None,
        }
        for name in itertools.compress(given, given.values()):
            yield f"{name} is ignored: guidance is 1"


def generate_image(
    prompt: str,
    *,
    negative_prompt: str = "",
    model: StableDiffusion | str | Path | None = None,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int | None = None,
    sampler: str | None = None,
    schedule: str | None = None,
    count: int = 1,
    image: Image.Image | str | Path | None = None,
    mask: Image.Image | str | Path | None = None,
    strength: float | None = None,
    guidance_rescale: float = 0.0,
    guidance_interval: tuple[float, float] | None = None,
    image_guidance: float | None = None,
    depth: Image.Image | str | Path | None = None,
    clip_skip: int | None = None,
    loras: Sequence[Any] = (),
    lora_dir: str | Path | None = None,
    embeddings_dir: str | Path | None = None,
    controls: Sequence[Any] = (),
) -> Any:
    """A picture for a sentence: a Pillow image, or a list of `count` images where `count` is more than 1.

    Arguments are explained at `Request`; what is left out is the model's own setting. `model` is a loaded model, a
    path or a name; None is the embedded model. Each picture carries what made it in `info["parameters"]`, the seed
    included, and `save_image` writes it to the file. Settings without effect are warned of. Raises InvalidRequest and
    ModelFileError, both StableDiffusionError.
    """
    loaded = isinstance(model, StableDiffusion)
    request = Request(
        prompt,
        negative_prompt=negative_prompt,
        model=None if loaded or model is None else str(model),
        width=width,
        height=height,
        steps=steps,
        guidance=guidance,
        seed=seed,
        sampler=sampler,
        schedule=schedule,
        count=count,
        image=image,  # type: ignore[arg-type]  # paths are opened by Request
        mask=mask,  # type: ignore[arg-type]
        strength=strength,
        guidance_rescale=guidance_rescale,
        guidance_interval=guidance_interval,
        image_guidance=image_guidance,
        depth=depth,  # type: ignore[arg-type]
        clip_skip=clip_skip,
        loras=loras,  # type: ignore[arg-type]  # paths become Lora there
        lora_dir=lora_dir,  # type: ignore[arg-type]
        embeddings_dir=embeddings_dir,  # type: ignore[arg-type]
        controls=controls,  # type: ignore[arg-type]
    )
    ready = model if isinstance(model, StableDiffusion) else load(request.model)
    pictures, notes = _drained(generate(ready, request))
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return pictures if count > 1 else pictures[0]


def _drained(events: Iterator[Event]) -> tuple[list[Image.Image], tuple[str, ...]]:
    """All pictures of a stream, and its last notes."""
    pictures: list[Image.Image] = []
    notes: tuple[str, ...] = ()
    for event in events:
        if isinstance(event, Images):
            pictures += event.images
            notes = event.notes
    return pictures, notes
