"""Enlarging finished pictures: the extras routes of A1111."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from ...images import GeneratedImage
from ...request.pictures import crop, plain_mode
from ...request.writers.forms import KEY
from ..errors import ApiError
from ..library import Library
from .bodies import Extras
from .upscaler_names import LANCZOS, NEAREST, NONE, upscaler_named

TO_SIZE = 1
"""A1111's `resize_mode` that names a size, not a factor."""


Network = Callable[[Image.Image, str, tuple[int, int]], Image.Image]
"""What enlarges a picture to a size by the upscaler of a name, through the queue."""


@dataclass(frozen=True, kw_only=True)
class Enlarging:
    """What to do with a picture: the names of one or two upscalers, and how much of the second is mixed in."""

    first: str
    second: str
    share: float
    notes: tuple[str, ...]


def enlarging(body: Extras, library: Library) -> Enlarging:
    """The upscalers of a body; InvalidRequest, with the nearest name, for one that there is not."""
    notes: list[str] = []
    names = [upscaler_named(name, library, notes) for name in (body.upscaler_1, body.upscaler_2)]
    if body.gfpgan_visibility or body.codeformer_visibility:
        notes.append("gfpgan and codeformer are ignored: there is no restorer of faces")
    share = 0.0 if names[1] == NONE else body.extras_upscaler_2_visibility
    return Enlarging(first=names[0], second=names[1], share=share, notes=tuple(notes))


def check_target(body: Extras, size: tuple[int, int], most_side: int, most_pixels: int) -> None:
    """400 where the enlarged picture would be beyond this server's limits."""
    width, height = _target(body, size)
    if max(width, height) > most_side or width * height > most_pixels:
        raise ApiError(
            400,
            f"the enlarged picture would have {width}x{height} pixels; expected at most {most_side} on a side "
            f"and {most_pixels} in all",
            param="upscaling_resize",
        )


def _target(body: Extras, size: tuple[int, int]) -> tuple[int, int]:
    """The size to enlarge to; for a named size it covers that, and is cut to it afterwards."""
    scale = body.upscaling_resize
    if body.resize_mode == TO_SIZE:
        scale = max(body.upscaling_resize_w / size[0], body.upscaling_resize_h / size[1])
    width, height = (max(1, round(side * scale)) for side in size)
    return width, height


def enlarged_picture(image: Image.Image, body: Extras, plan: Enlarging, network: Network) -> GeneratedImage:
    """The picture enlarged, by `network` where an upscaler of a file is named; its own text stays, and says how it was
    enlarged."""
    shown = plain_mode(image)
    made = _by(plan.first, shown, _target(body, image.size), network)
    if plan.share > 0:
        made = Image.blend(made, _by(plan.second, shown, made.size, network).convert(made.mode), plan.share)
    wanted = (body.upscaling_resize_w, body.upscaling_resize_h)
    if body.resize_mode == TO_SIZE and body.upscaling_crop and made.size != wanted:
        made = crop(made, *wanted)
    found = GeneratedImage.of(made)
    text = image.info.get(KEY)
    how = f"Postprocess upscale to: {made.width}x{made.height}, Postprocess upscaler: {plan.first}"
    found.info[KEY] = f"{text}, {how}" if isinstance(text, str) and text else how
    return found


def _by(name: str, image: Image.Image, size: tuple[int, int], network: Network) -> Image.Image:
    """ "None" is no upscaler of its own: the picture is resized as by Lanczos."""
    if name in (NONE, LANCZOS):
        return image.resize(size, Image.Resampling.LANCZOS)
    if name == NEAREST:
        return image.resize(size, Image.Resampling.NEAREST)
    return network(image, name, size)


@dataclass(frozen=True)
class EnlargedFile:
    """An enlarged picture as a PNG file in base64, and its size."""

    text: str
    size: tuple[int, int]


def enlarged_file(image: Image.Image, body: Extras, plan: Enlarging, network: Network) -> EnlargedFile:
    """`enlarged_picture` as a file."""
    made, file = enlarged_picture(image, body, plan, network), io.BytesIO()
    made.save(file, "PNG")
    return EnlargedFile(base64.b64encode(file.getvalue()).decode("ascii"), made.size)


def html_info(made: Sequence[EnlargedFile], plan: Enlarging) -> str:
    """What was done, in lines of HTML."""
    how = [f"{plan.first}, {each.size[0]}x{each.size[1]}" for each in made]
    return "".join(f"<p>{html.escape(line)}</p>" for line in (*how, *plan.notes))
