"""A request on a model, every setting known: what is left out from the model, seeds at random, sizes checked.

Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..diffusion.denoise import IMAGE_GUIDANCE
from ..diffusion.samplers import Solver, solver
from ..diffusion.schedule import FlowSchedule
from ..engine.shortcuts import EXACT, FEWEST, Shortcuts, can_merge, shortcuts_of
from ..errors import InvalidRequest
from ..request.names import SAMPLERS, canonical_sampler, resolve_sampler, resolve_schedule
from ..request.request import Request
from ..request.sequences import MAX_SIDE
from ..request.settings import MAX_STEPS, UPSCALERS, Canvas, Fill, Hires, Inpaint, SizeConditioning, VariationSeed
from ..text.prompt import split_and
from ..weights.containers.open import model_file
from ..weights.parts import Defaults
from .image import covering_size, fitting_size
from .tasks.background import background_notes, check_model
from .tasks.given_pictures import picture_notes
from .tasks.hires import HIRES_STRENGTH, hires_size, schedule_steps, share_of
from .tasks.init_image import InputKind, input_kind
from .tasks.masks import even_margins
from .tasks.panorama import prepare_panorama

if TYPE_CHECKING:
    from .models import StableDiffusion

STRENGTH = 0.75
"""Strength of img2img and inpainting where none is given."""
WHOLE_STRENGTH = 1.0
"""What is added to a picture has nothing that could be kept, and models that edit pictures are given them."""
PADDING = 32
"""Pixels around the masked part that the model sees, as in A1111."""
Size = tuple[int, int]


@dataclass(frozen=True)
class PixelGrid:
    """The grid on which sides of pictures lie: multiples of `factor` pixels, and of `coarse` for edges that meet or are
    those of windows, so that the network's smallest features divide evenly."""

    factor: int
    coarse: int


@dataclass(frozen=True, kw_only=True)
class ResolvedPass:
    """A way down from noise: at this size, the last `steps` or so of a schedule of `total` steps, as `strength` says.

    before    steps of the passes before it: prompts count on
    upscaler  enlarges the latent of the pass before it; "" for the first
    """

    size: Size
    steps: int
    total: int
    strength: float
    before: int = 0
    upscaler: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Resolved:
    """A request on a model: what the run needs to know of it, and notes on what has no effect.

    request  with every setting filled in: what texts of pictures are written from, and requests of single pictures made
    implied  options that the sampler's name implies
    """

    request: Request
    guidance: float
    image_guidance: float
    sampler: Solver
    implied: Mapping[str, Any]
    schedule: str
    fill: Fill
    padding: int
    blur: float
    window: int
    overlap: int
    passes: tuple[ResolvedPass, ...]
    shortcuts: Shortcuts = EXACT
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        """Of the first pass."""
        return self.passes[0].size


def resolve(request: Request, model: StableDiffusion) -> Resolved:
    """Every setting of a request (whose styles are joined already); InvalidRequest where the model cannot do it."""
    check_model(model, request.background)
    request, changed = prepare_panorama(request, model)
    resolved = fill_in(
        request,
        defaults=model.defaults,
        grid=model.grid,
        name=model.name,
        automatic=model.automatic_schedule,
        edits=input_kind(model) == "image",
    )
    sized = request.width is not None or request.height is not None
    notes = (
        *changed,
        *_ignored(request, resolved, model),
        *background_notes(model, request),
        *picture_notes(request, resolved.size, sized=sized),
    )
    return replace(resolved, notes=notes)


def fill_in(
    request: Request,
    *,
    defaults: Defaults,
    grid: PixelGrid,
    name: str,
    automatic: Callable[[str], str],
    edits: bool = False,
) -> Resolved:
    """The request with every setting filled in.

    name       the model's name, which takes the place of a path in `model`
    automatic  sampler id -> the schedule that "automatic" means for it
    edits      the model is given the picture that it edits, and begins from pure noise
    """
    _check_pictures(request)
    request = _even_outpaint(request, grid.factor)
    width, height = _size(request, defaults, grid.factor)
    request.canvas.wrap.check(width, height, grid.coarse)
    steps = defaults.steps if request.steps is None else request.steps
    guidance = defaults.guidance if request.guidance is None else request.guidance
    image_guidance = IMAGE_GUIDANCE if request.image_guidance is None else request.image_guidance
    first = ResolvedPass(size=(width, height), steps=steps, total=steps, strength=_strength(request, edits))
    hires, passes = _passes(request, grid, first)
    sampler, schedule = _sampling(request, defaults, automatic)
    found = resolve_sampler(sampler)
    inpaint, canvas = _inpaint(request), _canvas(request.canvas, grid)
    return Resolved(
        request=replace(
            request,
            model=name,
            width=width,
            height=height,
            steps=steps,
            guidance=guidance,
            seed=secrets.randbits(32) if request.seed is None else request.seed,
            sampler=sampler,
            schedule=schedule,
            strength=None if request.image is None else first.strength,
            image_guidance=image_guidance if edits else request.image_guidance,
            variation=_variation(request.variation, grid),
            hires=hires,
            inpaint=inpaint,
            canvas=canvas,
        ),
        guidance=guidance,
        image_guidance=image_guidance,
        sampler=solver(found.id),
        implied=found.options,
        schedule=schedule,
        fill="original" if inpaint.fill is None else inpaint.fill,
        padding=inpaint.padding or 0,
        blur=inpaint.blur or 0.0,
        window=canvas.window or 0,
        overlap=canvas.window_overlap or 0,
        passes=passes,
        shortcuts=shortcuts_of(request.speed, request.token_merging, guided=guidance != 1),
    )


def _check_pictures(request: Request) -> None:
    """Settings of pictures and masks ask for a picture or a mask: here, since `--like` adds the picture later."""
    if request.image is None and request.strength is not None:
        raise InvalidRequest(
            f"strength is {request.strength:g}, but there is no image to start from; give image, or leave strength out"
        )
    if request.canvas.outpaint is not None and request.image is None:
        raise InvalidRequest("outpaint was given without an image; give the image to paint around")
    if request.mask is not None or request.canvas.outpaint is not None:
        return
    for name in ("only_masked", "invert", "soft", "fill", "blur", "padding"):
        if getattr(request.inpaint, name) not in (None, False, 0):
            raise InvalidRequest(f"{name} was given without a mask; give the mask whose white parts are repainted")


def _strength(request: Request, edits: bool) -> float:
    if request.strength is not None:
        return request.strength
    return WHOLE_STRENGTH if request.image is None or request.canvas.outpaint is not None or edits else STRENGTH


def _sampling(request: Request, defaults: Defaults, automatic: Callable[[str], str]) -> tuple[str, str]:
    """Sampler and noise schedule; the model's own schedule goes with its own sampler alone."""
    default_sampler, default_schedule = canonical_sampler(defaults.sampler)
    sampler = default_sampler if request.sampler is None else request.sampler
    schedule = request.schedule
    if schedule is None and sampler == default_sampler:
        schedule = default_schedule if default_schedule is not None else defaults.schedule
    return sampler, resolve_schedule(schedule, automatic(sampler))


def _even_outpaint(request: Request, factor: int) -> Request:
    if request.canvas.outpaint is None or request.image is None:
        return request
    margins = even_margins(request.image.size, request.canvas.outpaint, factor)
    return replace(request, canvas=replace(request.canvas, outpaint=margins))


def _variation(variation: VariationSeed, grid: PixelGrid) -> VariationSeed:
    if variation.resize_from is not None:
        _check_size(variation.resize_from, grid.factor, "the size in resize_from")
    if variation.strength > 0 and variation.seed is None:
        return replace(variation, seed=secrets.randbits(32))
    return variation


def _inpaint(request: Request) -> Inpaint:
    inpaint, outpaint = request.inpaint, request.canvas.outpaint
    if request.mask is None and outpaint is None:
        return inpaint
    usual: Fill = "original" if outpaint is None else "fill"
    return replace(
        inpaint,
        fill=usual if inpaint.fill is None else inpaint.fill,
        padding=PADDING if inpaint.only_masked and inpaint.padding is None else inpaint.padding,
    )


def _canvas(canvas: Canvas, grid: PixelGrid) -> Canvas:
    if canvas.window is None:
        return canvas
    overlap = canvas.window // 2 if canvas.window_overlap is None else canvas.window_overlap
    _check_size((canvas.window, canvas.window), grid.coarse, "a window of size")
    return replace(canvas, window_overlap=overlap // grid.factor * grid.factor)


def _passes(request: Request, grid: PixelGrid, first: ResolvedPass) -> tuple[Hires | None, tuple[ResolvedPass, ...]]:
    """Hires fix filled in, and all passes; a whole sphere stays twice as wide as high."""
    given = request.hires
    if given is None:
        return None, (first,)
    step = grid.coarse if request.canvas.wrap else grid.factor
    width, height = hires_size(*first.size, given.scale, step)
    width = 2 * height if request.canvas.panorama else width
    if max(width, height) > MAX_SIDE:
        raise InvalidRequest(f"hires makes {width}x{height} pixels; expected at most {MAX_SIDE} on a side")
    if given.upscaler not in (None, *UPSCALERS):
        model_file(given.upscaler)  # a file that is missing is said before the first pass, not after it
    steps = first.steps if given.steps is None else given.steps
    strength = HIRES_STRENGTH if given.strength is None else given.strength
    total = schedule_steps(steps, strength, MAX_STEPS)
    second = ResolvedPass(
        size=(width, height),
        steps=steps,
        total=total,
        strength=share_of(steps, total) if strength else 0.0,
        before=first.steps,
        upscaler=UPSCALERS[0] if given.upscaler is None else given.upscaler,
    )
    return replace(given, steps=steps, strength=strength, upscaler=second.upscaler), (first, second)


def _size(request: Request, defaults: Defaults, factor: int) -> tuple[int, int]:
    width, height = request.width, request.height
    if request.image is not None and request.canvas.outpaint is not None:
        left, top, right, bottom = request.canvas.outpaint
        size = (request.image.width + left + right, request.image.height + top + bottom)
        if (width is not None and width != size[0]) or (height is not None and height != size[1]):
            raise InvalidRequest(
                f"outpaint makes {size[0]}x{size[1]} of this image; leave out width and height, or give these"
            )
        return size
    if request.canvas.panorama:
        width, height = _panorama_size(width, height, defaults)
    elif request.image is not None and width is None and height is None and not request.inpaint.only_masked:
        fitting = fitting_size if request.mask is None else covering_size
        return fitting(request.image.size, (defaults.width, defaults.height), factor)
    width = defaults.width if width is None else width
    height = defaults.height if height is None else height
    _check_size((width, height), factor, "the size")
    return width, height


def _panorama_size(width: int | None, height: int | None, defaults: Defaults) -> tuple[int, int]:
    """Twice as wide as high; one side tells the other."""
    if height is None:
        height = defaults.height if width is None else width // 2
    width = 2 * height if width is None else width
    if width != 2 * height:
        raise InvalidRequest(
            f"a panorama of {width}x{height} is no whole sphere; expected twice as wide as high, such as "
            f"{2 * height}x{height}"
        )
    return width, height


def _check_size(size: tuple[int, int], factor: int, what: str) -> None:
    near = tuple(max(1, round(side / factor)) * factor for side in size)
    if near != size:
        raise InvalidRequest(
            f"{what} {size[0]}x{size[1]} does not fit the model; expected multiples of {factor}, "
            f"the nearest is {near[0]}x{near[1]}"
        )


# --- what has no effect -----------------------------------------------------------------------------------------------


def _ignored(asked: Request, resolved: Resolved, model: StableDiffusion) -> Iterator[str]:
    """Settings that were given and have no effect, in plain sentences."""
    info, kind = resolved.sampler, input_kind(model)
    for name in asked.noise.options:
        if name not in info.options:
            yield f"{name} is ignored: the sampler {SAMPLERS[info.id].label} has no such setting"
    if asked.variation.seed is not None and asked.variation.strength == 0:
        yield "the variation seed is ignored: its strength is 0"
    yield from _of_other_models(asked, model)
    if resolved.window >= max(resolved.size) and asked.hires is None:
        yield f"window is ignored: the canvas is no larger than {resolved.window} pixels"
    if asked.depth is not None and kind != "depth":
        yield "depth is ignored: the model is not guided by depth"
    if asked.image_guidance is not None and kind != "image":
        yield "image_guidance is ignored: the model does not edit pictures"
    yield from _unguided(asked, resolved, model, kind)
    if asked.speed != "exact" and max(round(each.steps * each.strength) for each in resolved.passes) < FEWEST:
        yield f"speed is ignored: a run of fewer than {FEWEST} steps has none to spare"
    if asked.token_merging and not can_merge(model.parts.unet):
        yield "token_merging is ignored: the model has no self-attention of the picture alone"


def _of_other_models(asked: Request, model: StableDiffusion) -> Iterator[str]:
    """Settings that models of other kinds have."""
    if asked.noise.shift is not None and not isinstance(model.parts.schedule, FlowSchedule):
        yield "shift is ignored: the model is no flow model"
    if asked.micro_conditioning != SizeConditioning() and not model.parts.size_numbers and asked.refiner is None:
        yield "micro_conditioning is ignored: the model reads no sizes"
    if asked.refiner is not None and (asked.controls or asked.loras):
        yield "the refiner paints without the controls and LoRAs, which were made for the base"


def _unguided(asked: Request, resolved: Resolved, model: StableDiffusion, kind: InputKind) -> Iterator[str]:
    """Settings of a guidance that is not there."""
    given = {
        "negative_prompt": bool(asked.negative_prompt),
        "guidance_rescale": asked.guidance_rescale > 0,
        "guidance_interval": asked.guidance_interval is not None,
    }
    itself = model.denoising_process.guides_itself
    if kind == "image":
        given["negative_prompt"], why = False, "the model is guided by the picture that it edits too"
    elif resolved.sampler.paired or len(split_and(asked.prompt)) > 1:
        return
    elif itself or resolved.guidance == 1:
        why = "the network reads its guidance" if itself else "guidance is 1"
    else:
        return
    for name in itertools.compress(given, given.values()):
        yield f"{name} is ignored: {why}"
