"""A whole sphere as one picture: what a request for it needs besides edges that meet.

Networks know up from down by the zeros that convolutions put above and below a picture. So left and right alone meet
inside them; the poles are made even once the picture is decoded (`even_poles`). The rest is said before the run:

- pictures fill their frame (background "scene"), since a sphere with holes shows nothing behind them;
- models that paint opaque pictures only are given words for the view;
- a large sphere is painted at the model's own height and enlarged (hires), in windows as high as it is, so that all of
  them share the horizon of the small one;
- networks that follow depth or segmentation are given a level ground under a sky where they are given no picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...errors import InvalidRequest
from ...request.control import Control
from ...request.pictures import has_alpha as picture_has_alpha
from ...request.settings import MAX_HIRES, SCENE, Hires
from ...text.prompt import split_and
from .background import has_alpha
from .hires import hires_size
from .init_image import input_kind

if TYPE_CHECKING:
    from PIL import Image

    from ...request.request import Request
    from ..models import StableDiffusion

WORDS = ("{}, 360 degree panorama, level horizon", "{}，360度全景，水平的地平线")
"""What is added to prompts in English and in Chinese."""
LARGE_STRENGTH = 0.4
"""Strength of the second pass of a large sphere: details are new, and the horizon stays where it is."""
LARGE_UPSCALER = "Lanczos"
_SAID = re.compile(r"panoram|equirectangular|360|horizon|全景|地平线", re.IGNORECASE)
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
SKY, GROUND = (6, 230, 230), (120, 120, 70)
"""Colours of sky and earth in the palette of ADE20K, which segmentation ControlNets read."""


def prepare_panorama(request: Request, model: StableDiffusion) -> tuple[Request, tuple[str, ...]]:
    """The request with what a whole sphere needs, and notes on what was changed; itself where it asks for no sphere.

    InvalidRequest where a control has no picture and none can be drawn for it.
    """
    if not request.canvas.panorama:
        return request, ()
    notes = []
    worded = request if has_alpha(model) or request.image is not None else _with_words(request)
    if worded is not request:
        notes.append(f"the prompt became {worded.prompt!r}, so that the panorama has a level horizon")
    opaque = request.image is None or not picture_has_alpha(request.image)
    if has_alpha(model) and request.background is None and opaque:
        worded = worded.with_changes(background=SCENE)
    if request.image is None and input_kind(model) == "depth" and request.depth is None:
        worded = worded.with_changes(depth=horizon_depth())
    large = _as_hires(worded, model)
    if large is not worded and large.hires is not None:
        notes.append(
            f"the panorama is painted at {large.width}x{large.height} and enlarged by {large.hires.scale:g}, "
            "so that it has one horizon"
        )
    return large, tuple(notes)


def share_horizon(window: int, overlap: int, height: int) -> tuple[int, int]:
    """Side and overlap of windows, grown to the height of the canvas: a window that does not see the horizon would
    paint one of its own. No windows (0) stay none."""
    if window == 0 or window >= height:
        return window, overlap
    return height, overlap * height // window


def controls_with_horizon(controls: tuple[Control, ...]) -> Iterator[Control]:
    """The controls, those without a picture with one of level ground under a sky, as depth or as segmentation."""
    for control in controls:
        if control.image is not None:
            yield control
            continue
        kind = f"{control.task or ''} {control.name}".lower()
        if "depth" in kind:
            yield replace(control, image=horizon_depth())
        elif "seg" in kind:
            yield replace(control, image=horizon_segmentation())
        else:
            raise InvalidRequest(
                f"the control {control.name!r} has no image; give the picture that it is to follow (panoramas draw one "
                "for controls that have 'depth' or 'seg' in their name or task)"
            )


def horizon_depth(width: int = 1024) -> Image.Image:
    """Depth of a plane seen from above it, [width / 2, width] of grey: 1 / distance is the sine of the angle below the
    horizon, so that black at the horizon and above becomes white straight below."""
    from PIL import Image

    below = -np.sin(_latitudes(width // 2)).clip(None, 0)
    return Image.fromarray(np.repeat(np.round(255 * below)[:, None], width, axis=1).astype(np.uint8))


def horizon_segmentation(width: int = 1024) -> Image.Image:
    """Sky above the horizon and earth below it, [width / 2, width] of ADE20K's colours."""
    from PIL import Image

    above = _latitudes(width // 2)[:, None, None] > 0
    return Image.fromarray(np.broadcast_to(np.where(above, SKY, GROUND), (width // 2, width, 3)).astype(np.uint8))


def _latitudes(rows: int) -> npt.NDArray[np.float64]:
    """Angle above the horizon of each row's middle, from nearly +pi/2 to nearly -pi/2."""
    return np.pi / 2 - (np.arange(rows) + 0.5) / rows * np.pi


def _with_words(request: Request) -> Request:
    """The request with words for the view; itself where its prompt has such words, or no end of its own."""
    if _SAID.search(request.prompt) or not request.prompt.strip() or len(split_and(request.prompt)) > 1:
        return request
    words = WORDS[bool(_CHINESE.search(request.prompt))]
    try:
        return request.with_changes(prompt=words.format(request.prompt))
    except InvalidRequest:  # the prompt is as long as a prompt may be
        return request


def _as_hires(request: Request, model: StableDiffusion) -> Request:
    """A sphere higher than the model's pictures as one of their height that is enlarged in windows of their size."""
    given = request.height or (None if request.width is None else request.width // 2)
    small = model.defaults.height
    if given is None or given <= small or request.hires is not None or request.image is not None:
        return request
    scale, step = given / small, model.grid.coarse
    if small % step or scale > MAX_HIRES or hires_size(2 * small, small, scale, step) != (2 * given, given):
        return request
    if request.width is not None and request.width != 2 * given:
        return request  # no whole sphere, which is said later
    canvas = request.canvas
    if canvas.window is None:
        canvas = replace(canvas, window=given)
    hires = Hires(scale=scale, strength=LARGE_STRENGTH, upscaler=LARGE_UPSCALER)
    return request.with_changes(width=2 * small, height=small, hires=hires, canvas=canvas)
