"""Saving pictures: whole or not at all, with what made them inside."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import InvalidRequest, StableDiffusionError, unknown_choice
from ..request.metadata import user_comment
from ..request.metadata_read import EXIF_IFD, KEY, USER_COMMENT

FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
QUALITY = 95
XMP = "xmp"
"""Key of `Image.info` under which Pillow keeps an XMP packet; a panorama's is written to its file."""
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
    exif = Image.Exif()
    packet = image.info.get(XMP)
    packet = packet if isinstance(packet, bytes) else b""
    if text and kind != "PNG":
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = user_comment(text)
    with path.open("wb") as file:
        if kind == "PNG":
            chunks = PngInfo()
            if text:
                chunks.add_text(KEY, text)  # tEXt, or iTXt where the text is not Latin-1
            if packet:
                chunks.add_itxt(XMP_CHUNK, packet.decode())
            image.save(file, kind, pnginfo=chunks)
        elif kind == "WEBP":
            image.save(file, kind, lossless=True, exact=True, exif=exif, xmp=packet)
        else:
            image = image.convert("RGBA") if image.mode in ("LA", "P", "PA") else image
            if image.mode == "RGBA":
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image.convert("RGB").save(file, kind, quality=QUALITY, subsampling=0, exif=exif, extra=_segment(packet))
        file.flush()
        os.fsync(file.fileno())


def _segment(packet: bytes) -> bytes:
    """An XMP packet as the application segment of a JPEG file that holds it."""
    body = XMP_SEGMENT + packet
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body if packet else b""


def _reason(error: OSError) -> str:
    """What the system refused, in words."""
    if error.errno == errno.ENOSPC:
        return "the disk is full"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return "a part of the path is a file, not a folder"
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
