"""Pictures and masks as people have them, brought to the form that a run needs, with a note on what was done."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from ...request.pictures import grey_mask, mode_note, plain_mode
from ...request.request import Request

BLACK = 15
"""A grey of a mask that is not brighter, of 255, is black: files and brushes leave such greys where nothing was
painted."""
BLACK_SOFT = 3
"""The same for a soft mask, whose greys are strengths."""
MANY = 0.01
"""The share of a picture that nearly black pixels may have without a note: the edges of brushes have some."""
STRETCHED = 0.95
"""A part whose sides fit by this much is stretched to them; of another shape, it is framed."""
Box = tuple[int, int, int, int]


def ready_mask(request: Request, image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """(the mask of a request in grey, white where `image` is repainted and exactly black elsewhere, notes)."""
    notes: list[str] = []
    assert request.mask is not None
    mask = _grey(request.mask, notes)
    low, high = mask.getextrema()
    if isinstance(high, int) and isinstance(low, int) and low < high <= BLACK:
        notes.append(f"the mask's brightest grey is {high} of 255; it is read as white")
        mask = mask.point([min(255, max(0, value - low) * 255 // (high - low)) for value in range(256)])
    if mask.size != image.size:
        sizes = [f"{picture.width}x{picture.height}" for picture in (mask, image)]
        notes.append(f"the mask is {sizes[0]} and the image {sizes[1]}; the mask is resized")
        mask = mask.resize(image.size, Image.Resampling.BILINEAR)
    mask = ImageOps.invert(mask) if request.inpaint.invert else mask
    limit = BLACK_SOFT if request.inpaint.soft else BLACK
    grey = np.asarray(mask)
    if ((grey > 0) & (grey <= limit)).mean() > MANY:
        notes.append(f"the mask is not quite black: greys of at most {limit} of 255 are read as black")
    mask = mask.point([value if value > limit else 0 for value in range(256)])
    if mask.getbbox() is None and not request.inpaint.only_masked:
        notes.append("the mask is black everywhere: nothing is repainted")
    return mask, tuple(notes)


def _grey(mask: Image.Image, notes: list[str]) -> Image.Image:
    """Its brightness; of a mask that is black all over and clear in places, how opaque it is."""
    grey, plain = grey_mask(mask), plain_mode(mask)
    if plain.mode == "RGBA" and (
        grey.getbbox() is None or grey.point([v > BLACK for v in range(256)]).getbbox() is None
    ):
        alpha = plain.getchannel("A")
        low, high = alpha.getextrema()
        if low != high:
            notes.append("the mask is black everywhere; its alpha says what is repainted")
            return alpha
    return grey


def picture_notes(request: Request, size: tuple[int, int], *, sized: bool) -> Iterator[str]:
    """Notes on the pictures of a request that is run at `size`; `sized` where its size was asked for."""
    for name, picture in (("image", request.image), ("mask", request.mask), ("depth", request.depth)):
        note = None if picture is None else mode_note(picture, name)
        if note is not None:
            yield note
    image = request.image
    if image is None or request.canvas.outpaint is not None:
        return
    if request.mask is not None:
        yield from ready_mask(request, image)[1]
    if image.size != size and not sized and not request.inpaint.only_masked:
        what = "and put back into its own size" if request.mask is not None else "scaled and cut at the edges"
        yield f"the image is {image.width}x{image.height}; it is painted at {size[0]}x{size[1]} {what}"


def framed(picture: Image.Image, size: tuple[int, int], step: int, *, edge: bool) -> tuple[Image.Image, Box]:
    """(the picture on a canvas of `size`, where it lies there).

    One that is smaller by less than `step` pixels stays as it is; others are scaled into the canvas, and stretched
    where they nearly have its shape. The rest of the canvas repeats the picture's border, or is black without `edge`.
    """
    if 0 <= size[0] - picture.width < step and 0 <= size[1] - picture.height < step:
        inner, left, top = picture, 0, 0
    else:
        scale = min(size[0] / picture.width, size[1] / picture.height)
        width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        if min(width / size[0], height / size[1]) > STRETCHED:
            width, height = size
        inner = picture.resize((width, height), Image.Resampling.LANCZOS)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
    box = (left, top, left + inner.width, top + inner.height)
    if inner.size == size:
        return inner, box
    pixels = np.asarray(inner)
    around = [(top, size[1] - box[3]), (left, size[0] - box[2]), *([(0, 0)] if pixels.ndim == 3 else [])]
    return Image.fromarray(np.pad(pixels, around, mode="edge") if edge else np.pad(pixels, around)), box
