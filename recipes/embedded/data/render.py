"""From SVG or a raster file to a framed square of RGBA bytes.

Every picture is drawn at twice the size, cropped to what is visible, scaled so that its longer side fills `FILL` of the
square, and centred: one framing for all sources, so that a small model need not learn several. Resizing works on
premultiplied colour, so no dark fringe grows at the edges. Shapes: pictures are uint8 [S, S, 4], straight alpha.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]

FILL = 0.92
VISIBLE = 8  # alpha at or under this is taken as empty when cropping


def iconify_svg(icon: dict[str, Any], data: dict[str, Any], colour: str | None = None) -> str:
    """A complete SVG document of one icon; `colour` replaces `currentColor` in single-colour sets."""
    left, top = icon.get("left", data.get("left", 0)), icon.get("top", data.get("top", 0))
    width, height = icon.get("width", data.get("width", 16)), icon.get("height", data.get("height", 16))
    body = icon["body"] if colour is None else icon["body"].replace("currentColor", colour)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>'
    )


def draw_svg(svg: str, width: int, height: int | None = None) -> Image.Image:
    """Render an SVG document to an RGBA image of the given pixel size."""
    import resvg_py  # a rendering tool of the recipe, not of the library

    data = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=width, height=height, skip_system_fonts=True))
    return Image.open(io.BytesIO(data)).convert("RGBA")


def open_raster(path: Path) -> Image.Image:
    """Read a raster file as RGBA."""
    with Image.open(path) as image:
        return image.convert("RGBA")


def premultiplied_resize(image: Image.Image, size: tuple[int, int]) -> Picture:
    """Resize with colour premultiplied by alpha, back to straight alpha. uint8 [H, W, 4]."""
    values = np.asarray(
        image.convert("RGBa").resize(size, Image.Resampling.LANCZOS, reducing_gap=None), dtype=np.float32
    )
    alpha = values[..., 3:]
    colour = np.where(alpha > 0, np.minimum(values[..., :3], alpha) * 255.0 / np.maximum(alpha, 1.0), 0.0)
    return np.concatenate([colour, alpha], axis=-1).round().clip(0, 255).astype(np.uint8)


def visible_part(image: Image.Image) -> Image.Image | None:
    """An RGBA image cropped to what is visible; None when nothing is."""
    box = image.getchannel("A").point(lambda alpha: 255 if alpha > VISIBLE else 0).getbbox()
    return image.crop(box) if box else None


def trimmed(picture: Picture) -> Image.Image:
    """A picture cropped to what is visible; whole when nothing is."""
    image = Image.fromarray(picture, "RGBA")
    return visible_part(image) or image


def frame(image: Image.Image, size: int, fill: float = FILL) -> Picture | None:
    """Crop to the visible part, scale its longer side to `fill * size`, centre. None when nothing is visible."""
    crop = visible_part(image)
    if crop is None:
        return None
    scale = fill * size / max(crop.size)
    width, height = (max(1, round(side * scale)) for side in crop.size)
    small = premultiplied_resize(crop, (width, height))
    picture = np.zeros((size, size, 4), dtype=np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    picture[top : top + height, left : left + width] = small
    return picture


def frame_svg(svg: str, size: int) -> Picture | None:
    """Render at twice the size and frame."""
    return frame(draw_svg(svg, 2 * size), size)


def coverage(picture: Picture) -> float:
    """Share of the square that is opaque, 0 to 1: a guard against empty or broken renders."""
    return float(picture[..., 3].mean()) / 255.0
