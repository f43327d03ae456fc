"""Pictures as OpenAI's clients want them: as they were written, or in another format, quality or size."""

from __future__ import annotations

import base64
import io

from PIL import Image

from ..v1.gallery import converted
from .fields import ImageFields

BEST = 100


def as_asked(data: bytes, kind: str, compression: int) -> bytes:
    """A PNG file as it is, or as JPEG or WebP of a quality, with the settings that it carries.

    compression  0 to 100, of JPEG and WebP; 100 is WebP without loss, and the best JPEG
    """
    if kind == "png":
        return data
    return converted(data, kind, None if compression >= BEST else compression)


def partial_picture(data: bytes, kind: str, size: tuple[int, int]) -> bytes:
    """A preview as a file of the format and size of the picture that forms."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        shown = image.convert("RGB") if kind == "jpeg" else image
        shown.resize(size, Image.Resampling.BICUBIC).save(file, kind.upper())
    return file.getvalue()


def has_clear_pixels(data: bytes) -> bool:
    """Whether a picture file is transparent somewhere."""
    with Image.open(io.BytesIO(data)) as image:
        return image.mode == "RGBA" and image.getchannel("A").getextrema()[0] != 255


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def in_format(data: bytes, fields: ImageFields) -> bytes:
    """A picture in the format and quality of a request."""
    return as_asked(data, fields.output_format, fields.output_compression)
