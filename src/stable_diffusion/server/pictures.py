"""Pictures as clients send them: decoded within limits, away from the event loop, and never fetched from anywhere."""

from __future__ import annotations

import base64
import binascii
import io
import threading
import warnings
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, brief, what_is
from ..request.pictures import plain_mode

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")
STARTS = ((b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"RIFF", "WEBP"))
MOST_SIDE = 16_384
DECODES = threading.BoundedSemaphore(2)
"""Pictures that are decoded at once: each may take some hundred megabytes."""
INPUT, PICTURE = "input:", "picture:"
"""How a text begins that names an uploaded picture, or one of the gallery."""


def decode(data: bytes, what: str, most_pixels: int) -> Image.Image:
    """The picture in a PNG, JPEG or WebP file, upright; its size is checked before a pixel is read.

    InvalidRequest where it is none, is damaged, moves, or has more than `most_pixels`.
    """
    from PIL import Image, ImageOps

    if not any(data.startswith(start) for start, _ in STARTS):
        raise InvalidRequest(f"{what} is no PNG, JPEG or WebP file")
    with DECODES, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image, what, most_pixels)
                image.load()
                return ImageOps.exif_transpose(image)
        except InvalidRequest:
            raise
        except Image.DecompressionBombError:
            raise InvalidRequest(f"{what} has too many pixels; expected at most {most_pixels}") from None
        except Exception as error:  # decoders raise anything on damaged files
            raise InvalidRequest(f"{what} cannot be read: {brief(error, 120)}") from None


def _check_size(image: Image.Image, what: str, most: int) -> None:
    width, height = image.size
    if width * height > most or max(width, height) > MOST_SIDE:
        raise InvalidRequest(
            f"{what} has {width}x{height} pixels; expected at most {most} in all and {MOST_SIDE} on a side"
        )
    if getattr(image, "n_frames", 1) > 1:
        raise InvalidRequest(f"{what} has {getattr(image, 'n_frames', 1)} frames; expected a still picture")


def from_text(text: object, what: str) -> bytes:
    """The bytes of a picture in base64 or a data URI; InvalidRequest for anything else, addresses above all."""
    if not isinstance(text, str):
        raise InvalidRequest(f"{what} is {what_is(text)}; expected a picture in base64")
    if text[:12].lower().lstrip().startswith(("http:", "https:", "file:", "ftp:", "//")):
        raise InvalidRequest(f"{what} is an address; pictures are taken in base64 alone, and nothing is fetched")
    head, sign, body = text.partition(",") if text[:5].lower() == "data:" else ("", ",", text)
    if not sign or (head and ";base64" not in head.lower()):
        raise InvalidRequest(f"{what} is a data URI that is not in base64")
    body = "".join(body.split())
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{what} is no picture in base64; expected a PNG, JPEG or WebP file in it") from None


def is_digest(text: str) -> bool:
    return len(text) == 64 and all(sign in "0123456789abcdef" for sign in text)


def png(image: Image.Image) -> bytes:
    """The pixels alone as a PNG file: nothing of the file that they came from."""
    file = io.BytesIO()
    plain_mode(image).save(file, "PNG", compress_level=3)
    return file.getvalue()


def written_png(image: Image.Image) -> bytes:
    """The picture as a PNG file with the settings that are written in it, and nothing else."""
    from ..images import GeneratedImage

    file = io.BytesIO()
    GeneratedImage.of(plain_mode(image)).save(file, "PNG", compress_level=3)
    return file.getvalue()
