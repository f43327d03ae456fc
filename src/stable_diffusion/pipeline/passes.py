"""The passes of a run as one stream of steps: painting, and with hires fix the enlarging and painting again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..diffusion.samplers import solver
from ..models.mmdit import MMDiT
from ..request.names import resolve_sampler
from ..request.request import Request
from ..request.settings import MAX_STEPS
from ..text.prompt_schedule import Timeline
from ..types import Conditioning, Step
from .process import Random
from .prompts import Words
from .resolve import Grid, second_size
from .tasks.hires import enlarged, schedule_steps, share_of
from .tasks.init_image import Start
from .tasks.masks import start_latent
from .tasks.seamless import Wrapped
from .tasks.told_picture import image_conditioning
from .tasks.variation import Variation
from .tasks.windows import Windows

if TYPE_CHECKING:
    from .models import StableDiffusion


@dataclass(frozen=True)
class PassStep:
    """A step, and where it stands among those of all passes: number `index` (from 1) of `total`."""

    step: Step
    index: int
    total: int


def grid_of(model: StableDiffusion) -> Grid:
    """The model's grid of pixels."""
    network = model.parts.unet
    coarse = network.config.patch_size if isinstance(network, MMDiT) else 2 ** (len(network.config.channels) - 1)
    return Grid(model.factor, model.factor * coarse)


def passes(
    model: StableDiffusion,
    requests: Sequence[Request],
    words: Words,
    start: Start,
    options: Mapping[str, Any],
) -> Iterator[PassStep]:
    """Checks everything, then returns the steps of these pictures, which are resolved and differ by their seeds alone.

    The last step's `x` is the latent of the finished pictures.
    """
    request = requests[0]
    settings = {**_settings(model, requests), **_known_options(request), **options}
    last = {**settings, "handover": words.handover}
    first = _first(model, requests, words.passes[0], start, last if request.hires is None else settings)
    if request.hires is None:
        return (PassStep(step, step.index + 1, step.total) for step in first)
    assert request.hires.steps is not None and request.hires.strength is not None and request.hires.upscaler is not None
    schedule_steps(request.hires.steps, request.hires.strength, MAX_STEPS)
    return _both(first, partial(_second, model, request, words.passes[1], last), request)


def _both(first: Iterator[Step], second: Any, request: Request) -> Iterator[PassStep]:
    hires = request.hires
    assert hires is not None and hires.steps is not None
    more = hires.steps if hires.strength else 0
    made: Step | None = None
    for step in first:
        made = step
        if more or step.index + 1 < step.total:
            yield PassStep(step, step.index + 1, step.total + more)
    assert made is not None
    latent, run = second(made.x)
    if not more:
        yield PassStep(replace(made, x=latent), made.index + 1, made.total)
    for step in run:
        yield PassStep(step, made.total + step.index + 1, made.total + step.total)


def _first(
    model: StableDiffusion,
    requests: Sequence[Request],
    prompts: tuple[Timeline, Timeline],
    start: Start,
    settings: Mapping[str, Any],
) -> Iterator[Step]:
    request = requests[0]
    assert request.width is not None and request.height is not None
    size = (request.height // model.factor, request.width // model.factor)
    told = image_conditioning(model, request, (request.width, request.height), start)
    latent = start.latent
    if latent is not None and start.mask is not None and request.inpaint.fill is not None:
        noise = settings["noise_of"](size)
        latent = start_latent(latent.expand_as(noise), start.mask, request.inpaint.fill, noise.to(latent))
    return model.denoising_process(
        *_seeing(prompts, told),
        size=size,
        steps=request.steps,
        latent=latent,
        strength=1.0 if request.strength is None else request.strength,
        mask=start.mask,
        soft=request.inpaint.soft,
        **_without(settings, "noise_of"),
    )


def _second(
    model: StableDiffusion, request: Request, prompts: tuple[Timeline, Timeline], settings: Mapping[str, Any], x: Tensor
) -> tuple[Tensor, Iterator[Step]]:
    """The finished latent enlarged, and the steps of painting it again."""
    hires = request.hires
    assert hires is not None and hires.steps is not None and hires.strength is not None and hires.upscaler is not None
    size = second_size(request, grid_of(model))
    with Wrapped(request.canvas.wrap):
        latent = enlarged(model, x, size, hires.upscaler, request.canvas.wrap)
    total = schedule_steps(hires.steps, hires.strength, MAX_STEPS)
    run = model.denoising_process(
        *_seeing(prompts, image_conditioning(model, request, size, Start())),
        steps=total,
        latent=latent,
        strength=share_of(hires.steps, total) if hires.strength else 0.0,
        **_without(settings, "noise_of"),
    )
    return latent, run


def _without(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != name}


def _seeing(prompts: tuple[Timeline, Timeline], image: Tensor | None) -> tuple[Timeline, Timeline]:
    """The prompts with what the network is told besides."""

    def seeing(conditioning: Conditioning) -> Conditioning:
        return replace(conditioning, image=image)

    return prompts if image is None else (prompts[0].map(seeing), prompts[1].map(seeing))


def _settings(model: StableDiffusion, requests: Sequence[Request]) -> dict[str, Any]:
    """What all passes share, as `DenoisingProcess` takes it."""
    request, factor = requests[0], model.factor
    assert request.sampler is not None
    canvas, varied = request.canvas, request.variation
    windows = None
    if canvas.window is not None:
        side, overlap = canvas.window // factor, (canvas.window_overlap or 0) // factor
        windows = Windows(side, side, overlap)
    resize = varied.resize_from
    variation = Variation(
        seeds=tuple(each.variation.seed or 0 for each in requests),
        strength=varied.strength,
        size=None if resize is None else (resize[1] // factor, resize[0] // factor),
    )
    seeds = [each.seed for each in requests if each.seed is not None]
    random = Random(request.noise.source, request.noise.seed_delta)
    info = solver(resolve_sampler(request.sampler).id)
    return {
        "noise_of": lambda size: model.denoising_process.noise(info, seeds, size, variation, random).start(),
        "seed": seeds,
        "guidance": request.guidance,
        "sampler": request.sampler,
        "schedule": request.schedule,
        "rescale": request.guidance_rescale,
        "interval": request.guidance_interval,
        "image_guidance": request.image_guidance,
        "shift": request.noise.shift,
        "told_size": request.told_size,
        "wrap": canvas.wrap,
        "windows": windows,
        "variation": variation,
        "random": random,
    }


def _known_options(request: Request) -> dict[str, float]:
    """The sampler's settings of a request, as far as its sampler has them."""
    assert request.sampler is not None
    known = solver(resolve_sampler(request.sampler).id).options
    return {name: value for name, value in request.noise.options.items() if name in known}
