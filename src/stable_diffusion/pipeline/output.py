"""Saving pictures: whole or not at all, with what made them inside."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import warnings
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import InvalidRequest, StableDiffusionError, unknown_choice
from ..request.metadata import shortened, user_comment
from ..request.pictures import plain_mode
from ..request.writers.files import EXIF_IFD, USER_COMMENT
from ..request.writers.forms import KEY

FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("L", "LA", "P", "RGB", "RGBA"),
    "JPEG": ("L", "LA", "P", "PA", "RGB", "RGBA"),
}
"""Format -> the modes that are written as they are; others become RGB or RGBA."""
QUALITY = 95
XMP = "xmp"
"""Key of `Image.info` under which Pillow keeps an XMP packet; a panorama's is written to its file."""
MOST_EXIF, MOST_XMP = 65_000, 65_000
"""Bytes of text that a segment of a JPEG file holds: its length is a number of 16 bits."""
XMP_CHUNK, XMP_SEGMENT = "XML:com.adobe.xmp", b"http://ns.adobe.com/xap/1.0/\0"


def save_image(image: Image.Image, path: str | Path, *, parameters: str | None = None, overwrite: bool = True) -> Path:
    """Write a picture to PNG, WebP (both lossless, with alpha) or JPEG (over white), and return its path.

    `parameters` is the A1111 text to put inside; None takes the text that the picture itself carries (those of
    `generate_image` do), "" leaves it out. The folder is made where it is missing. The file appears under its name
    only when it is complete. InvalidRequest for an unusable name, StableDiffusionError where the disk refuses.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise unknown_choice("picture format", path.suffix or str(path), FORMATS)
    if "\0" in str(path):
        raise InvalidRequest(f"{str(path)!r} is not a name that a file can have")
    found = image.info.get(KEY) if parameters is None else parameters
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        if path.is_dir():
            raise InvalidRequest(f"{str(path)!r} is a folder; expected the name of a file")
        if path.exists() and not overwrite:
            raise InvalidRequest(f"{str(path)!r} exists; expected a new name")
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(image, temporary, FORMATS[path.suffix.lower()], found if isinstance(found, str) else "")
        os.replace(temporary, path)
    except OSError as error:
        raise StableDiffusionError(f"{str(path)!r} could not be written: {_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def _write(image: Image.Image, path: Path, kind: str, text: str) -> None:
    image = image if image.mode in MODES[kind] else plain_mode(image)
    text = _fitting(text) if kind == "JPEG" else text
    packet = image.info.get(XMP)
    packet = packet if isinstance(packet, bytes) else b""
    exif = Image.Exif()
    if text and kind != "PNG":
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = user_comment(text)
    with path.open("wb") as file:
        if kind == "PNG":
            image.save(file, kind, pnginfo=_chunks(text, packet))
        elif kind == "WEBP":
            image.save(file, kind, lossless=True, exact=True, exif=exif, xmp=packet)
        else:
            image = image.convert("RGBA") if image.mode in ("LA", "P", "PA") else image
            if image.mode == "RGBA":
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image.convert("RGB").save(file, kind, quality=QUALITY, subsampling=0, exif=exif, extra=_segment(packet))
        file.flush()
        os.fsync(file.fileno())


def _chunks(text: str, packet: bytes) -> PngInfo:
    """The texts of a PNG file: tEXt, or iTXt where the text is not Latin-1, or readers would take it for UTF-8."""
    chunks = PngInfo()
    text = text.encode("utf-8", "replace").decode()
    if text and _reads_as_utf8(text):
        chunks.add_itxt(KEY, text)
    elif text:
        chunks.add_text(KEY, text)
    if packet:
        chunks.add_itxt(XMP_CHUNK, packet.decode("utf-8", "replace"))
    return chunks


def _reads_as_utf8(text: str) -> bool:
    """Whether text that is not ASCII is UTF-8 when it is written as Latin-1."""
    try:
        return text.encode("latin-1").decode("utf-8") != text
    except UnicodeError:
        return False


def _fitting(text: str) -> str:
    """The text as far as a JPEG file holds it, with a warning where it is less."""

    def fits(text: str) -> bool:
        return len(user_comment(text)) <= MOST_EXIF

    if not text or fits(text):
        return text
    less = shortened(text, fits)
    what = "its prompts are cut in the file" if less else "the file is without it"
    warnings.warn(f"the text of what made the picture is too long for JPEG: {what}; PNG holds all of it", stacklevel=4)
    return less


def _segment(packet: bytes) -> bytes:
    """An XMP packet as the application segment of a JPEG file that holds it."""
    body = XMP_SEGMENT + packet
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body if packet and len(body) <= MOST_XMP else b""


def _reason(error: OSError) -> str:
    """What the system refused, in words."""
    if error.errno == errno.ENOSPC:
        return "the disk is full"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return "a part of the path is a file, not a folder"
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
