"""A request with every setting filled in: what is left out from the model, seeds drawn at random, sizes checked."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..diffusion.denoise import IMAGE_GUIDANCE
from ..errors import InvalidRequest
from ..request.fields import MAX_SIDE
from ..request.names import resolve_schedule
from ..request.request import Request, canonical_sampler
from ..request.settings import Hires
from .image import fitting_size
from .tasks import hires
from .tasks.masks import Fill, even_margins

STRENGTH = 0.75
"""Strength of img2img and inpainting where none is given."""
WHOLE_STRENGTH = 1.0
"""What is added to a picture has nothing that could be kept, and models that edit pictures are told them."""
PADDING = 32
"""Pixels around the masked part that the model sees, as in A1111."""


class ModelDefaults(Protocol):
    """Settings a model was made for (`weights.parts.Defaults`)."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def guidance(self) -> float: ...
    @property
    def sampler(self) -> str: ...
    @property
    def schedule(self) -> str: ...


@dataclass(frozen=True)
class Grid:
    """The grid on which sides of pictures lie: multiples of `factor` pixels, and of `coarse` for edges that meet or are
    those of windows, so that the network's smallest features divide evenly."""

    factor: int
    coarse: int


def resolve(
    request: Request,
    *,
    defaults: ModelDefaults,
    grid: Grid,
    name: str,
    automatic: Callable[[str], str],
    edits: bool = False,
) -> Request:
    """The request with every setting filled in.

    name       the model's name, which takes the place of a path in `model`
    automatic  sampler id -> the schedule that "automatic" means for it
    edits      the model is told the picture that it edits, and begins from pure noise
    """
    _check_pictures(request)
    request = _even_outpaint(request, grid.factor)
    width, height = _size(request, defaults, grid.factor)
    request.canvas.wrap.check(width, height, grid.coarse)
    default_sampler, default_schedule = canonical_sampler(defaults.sampler)
    sampler = default_sampler if request.sampler is None else request.sampler
    schedule = request.schedule
    if schedule is None and sampler == default_sampler:
        schedule = default_schedule if default_schedule is not None else defaults.schedule
    steps = defaults.steps if request.steps is None else request.steps
    return replace(
        request,
        model=name,
        width=width,
        height=height,
        steps=steps,
        guidance=defaults.guidance if request.guidance is None else request.guidance,
        seed=secrets.randbits(32) if request.seed is None else request.seed,
        sampler=sampler,
        schedule=resolve_schedule(schedule, automatic(sampler)),
        strength=_strength(request, edits),
        image_guidance=IMAGE_GUIDANCE if edits and request.image_guidance is None else request.image_guidance,
        **_groups(request, grid, steps, (width, height)),
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


def _strength(request: Request, edits: bool) -> float | None:
    if request.image is None:
        return None
    usual = STRENGTH if request.canvas.outpaint is None and not edits else WHOLE_STRENGTH
    return usual if request.strength is None else request.strength


def _even_outpaint(request: Request, factor: int) -> Request:
    if request.canvas.outpaint is None or request.image is None:
        return request
    margins = even_margins(request.image.size, request.canvas.outpaint, factor)
    return replace(request, canvas=replace(request.canvas, outpaint=margins))


def _groups(request: Request, grid: Grid, steps: int, size: tuple[int, int]) -> dict[str, Any]:
    """The groups, filled in."""
    variation, inpaint, canvas = request.variation, request.inpaint, request.canvas
    if variation.strength > 0 and variation.seed is None:
        variation = replace(variation, seed=secrets.randbits(32))
    if variation.resize_from is not None:
        _check_size(variation.resize_from, grid.factor, "the size in resize_from")
    if request.mask is not None or canvas.outpaint is not None:
        usual: Fill = "original" if canvas.outpaint is None else "fill"
        inpaint = replace(
            inpaint,
            fill=usual if inpaint.fill is None else inpaint.fill,
            padding=PADDING if inpaint.only_masked and inpaint.padding is None else inpaint.padding,
        )
    if canvas.window is not None:
        overlap = canvas.window // 2 if canvas.window_overlap is None else canvas.window_overlap
        _check_size((canvas.window, canvas.window), grid.coarse, "a window of size")
        canvas = replace(canvas, window_overlap=overlap // grid.factor * grid.factor)
    second = None if request.hires is None else _hires(request, request.hires, grid, steps, size)
    return {"variation": variation, "inpaint": inpaint, "canvas": canvas, "hires": second}


def _hires(request: Request, given: Hires, grid: Grid, steps: int, size: tuple[int, int]) -> Hires:
    found = replace(
        given,
        steps=steps if given.steps is None else given.steps,
        strength=hires.STRENGTH if given.strength is None else given.strength,
        upscaler=hires.UPSCALERS[0] if given.upscaler is None else given.upscaler,
    )
    large = second_size(replace(request, width=size[0], height=size[1], hires=found), grid)
    if max(large) > MAX_SIDE:
        raise InvalidRequest(f"hires makes {large[0]}x{large[1]} pixels; expected at most {MAX_SIDE} on a side")
    return found


def second_size(request: Request, grid: Grid) -> tuple[int, int]:
    """(width, height) of the second pass of a request that has one; a whole sphere stays twice as wide as high."""
    assert request.hires is not None and request.width is not None and request.height is not None
    step = grid.coarse if request.canvas.wrap else grid.factor
    width, height = hires.hires_size(request.width, request.height, request.hires.scale, step)
    return (2 * height if request.canvas.panorama else width), height


def _size(request: Request, defaults: ModelDefaults, factor: int) -> tuple[int, int]:
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
        return fitting_size(request.image.size, (defaults.width, defaults.height), factor)
    width = defaults.width if width is None else width
    height = defaults.height if height is None else height
    _check_size((width, height), factor, "the size")
    return width, height


def _panorama_size(width: int | None, height: int | None, defaults: ModelDefaults) -> tuple[int, int]:
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
