"""The texts in picture files by name: PNG chunks, EXIF, XMP and comments, also where the rest of a file is damaged.

A PNG's chunks are read here and not by Pillow, which stops at the first damaged one, and takes all of tEXt for Latin-1
where many programs write UTF-8.
"""

from __future__ import annotations

import contextlib
import gzip
import html
import io
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
MOST_TEXT = 16 * 2**20
"""Bytes of one text."""
MOST_BYTES = 2**30
USER_COMMENT, MAKER_NOTE, DESCRIPTION, MAKE, MODEL, SOFTWARE = 0x9286, 0x927C, 0x010E, 0x010F, 0x0110, 0x0131
EXIF_IFD = 0x8769
XP = {0x9C9B: "XPTitle", 0x9C9C: "XPComment", 0x9C9E: "XPKeywords", 0x9C9F: "XPSubject"}
"""Windows' own tags: UTF-16 in little-endian order."""
_CODES = {b"UNICODE\0": "utf-16", b"ASCII\0\0\0": "utf-8", b"JIS\0\0\0\0\0": "iso2022_jp", b"\0" * 8: "utf-8"}
_XMP_TEXT = re.compile(
    r"<(?:exif:UserComment|dc:description|dc:title|\w+:parameters|tiff:ImageDescription)\b[^>]*>(.*?)</", re.DOTALL
)
_XMP_VALUE = re.compile(r"<rdf:li[^>]*>(.*?)(?:</rdf:li>|\Z)", re.DOTALL)
_XMP_ATTRIBUTE = re.compile(r'\b(?:exif:UserComment|dc:description|\w+:parameters)="([^"]*)"')


def texts_in_file(path: Path) -> dict[str, str]:
    """The texts of a file by name; empty where there are none."""
    with path.open("rb") as file:
        return texts_in_bytes(file.read(MOST_BYTES))


def texts_in_bytes(data: bytes) -> dict[str, str]:
    """The same of the bytes of a file."""
    found = _png_texts(data) if data.startswith(PNG) else {}
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                found = {**texts_in_image(image), **found}
    except Exception:  # what Pillow makes of a damaged file is no matter here
        pass
    if not any(name in found for name in ("parameters", "UserComment")):
        chunks = (body for kind, body in png_chunks(data) if kind == b"eXIf") if data.startswith(PNG) else iter([data])
        comment = _salvaged(next(chunks, b""))
        found |= {} if comment is None else {"UserComment": comment}
    return found


def texts_in_image(image: Image.Image) -> dict[str, str]:
    """The texts that Pillow read with a picture, and those in its EXIF and XMP."""
    from PIL.PngImagePlugin import iTXt

    found: dict[str, str] = {}
    with contextlib.suppress(Exception):  # texts may stand behind the pixels; damaged ones are no matter here
        image.load()
    for name, value in image.info.items():
        if isinstance(value, str) and isinstance(name, str):
            plain = image.format == "PNG" and not isinstance(value, iTXt)
            found[name] = _utf8(value) if plain else str(value)
        elif name == "comment" and isinstance(value, bytes):
            found["comment"] = decoded(value)
        elif name in ("xmp", "XML:com.adobe.xmp") and isinstance(value, bytes):
            found |= _xmp_texts(decoded(value))
    if "XML:com.adobe.xmp" in found:
        found |= _xmp_texts(found.pop("XML:com.adobe.xmp"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found |= _exif_texts(image)
    except Exception:  # damaged EXIF raises anything; the other texts are as good
        pass
    return found


def _utf8(text: str) -> str:
    """Text of Latin-1 that was UTF-8: hardly any other text is both."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def decoded(data: bytes) -> str:
    """UTF-8, or what else the bytes are."""
    for code in ("utf-8", "shift_jis"):
        try:
            return data.decode(code).strip("\0")
        except UnicodeError:
            continue
    return data.decode("latin-1").strip("\0")


# --- PNG --------------------------------------------------------------------------------------------------------------


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each chunk, as far as the file goes; checksums do not matter."""
    place = len(PNG)
    while place + 8 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        yield kind, data[place + 8 : place + 8 + length]
        place += 12 + length


def _png_texts(data: bytes) -> dict[str, str]:
    """Texts of tEXt, zTXt and iTXt by name, the first of each."""
    found: dict[str, str] = {}
    for kind, body in png_chunks(data):
        name, separator, rest = body.partition(b"\0")
        if kind not in (b"tEXt", b"zTXt", b"iTXt") or not separator or name == b"XML:com.adobe.xmp":
            continue
        if kind == b"zTXt":
            rest = _inflated(rest[1:])
        elif kind == b"iTXt":
            packed, rest = rest[:1] == b"\1", rest[2:]
            rest = rest.partition(b"\0")[2].partition(b"\0")[2]
            rest = _inflated(rest) if packed else rest
        text = rest.decode("utf-8", "replace") if kind == b"iTXt" else _utf8(rest.decode("latin-1"))
        found.setdefault(name.decode("latin-1"), text[:MOST_TEXT])
    return found


def _inflated(data: bytes) -> bytes:
    """As much of a compressed text as there is, and as may be."""
    try:
        return zlib.decompressobj().decompress(data, MOST_TEXT)
    except zlib.error:
        return b""


# --- EXIF and XMP -----------------------------------------------------------------------------------------------------


def _exif_texts(image: Image.Image) -> dict[str, str]:
    exif = image.getexif()
    found: dict[str, str] = {}
    inner: Any = exif.get_ifd(EXIF_IFD)
    for name, value in (
        ("UserComment", inner.get(USER_COMMENT) or exif.get(USER_COMMENT)),
        ("MakerNote", inner.get(MAKER_NOTE)),
        ("ImageDescription", exif.get(DESCRIPTION)),
        ("Make", exif.get(MAKE)),
        ("Model", exif.get(MODEL)),
        ("Software", exif.get(SOFTWARE)),
    ):
        if isinstance(value, str):
            found[name] = _utf8(_without_code(value))
        elif isinstance(value, bytes):
            found[name] = comment_text(value)
    for tag, name in XP.items():
        value = exif.get(tag)
        value = bytes(value) if isinstance(value, tuple) else value
        if isinstance(value, bytes):
            found[name] = value.decode("utf-16-le", "replace").strip("\0")
    return found


def _without_code(text: str) -> str:
    return text.removeprefix("UNICODE\0").removeprefix("ASCII\0\0\0").strip("\0")


def comment_text(value: bytes) -> str:
    """An EXIF user comment: a character code of eight bytes, and text; many programs leave the code out, or write
    UTF-16 in either order, or something else than they say."""
    code = _CODES.get(value[:8].upper())
    body = value if code is None else value[8:]
    if code == "utf-16":
        return _utf16(body)
    if code == "iso2022_jp" and b"\x1b" in body:
        return body.decode(code, "replace").strip("\0")
    if body.count(b"\0") > len(body) // 4:
        return _utf16(body)
    return decoded(body)


def _utf16(body: bytes) -> str:
    """In the order that its mark says, or in which the signs of the format are many; UTF-8 where no byte is 0."""
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", "replace").strip("\0")
    codes = ["utf-16-be", "utf-16-le"] if b"\0" in body else ["utf-16-be", "utf-16-le", "utf-8"]
    texts = [body.decode(code, "replace") for code in codes]
    return max(texts, key=lambda text: sum(c in " ,:\n" for c in text)).strip("\0")


def _salvaged(data: bytes) -> str | None:
    """The user comment of EXIF whose tables are damaged: it is found by its character code."""
    for code in (b"UNICODE\0", b"ASCII\0\0\0"):
        place = data.find(code)
        if place >= 0:
            text = comment_text(data[place : place + 2**17])
            return text.split("\0")[0].split("\ufffd")[0]
    return None


def _xmp_texts(packet: str) -> dict[str, str]:
    """The descriptions and comments in an XMP packet."""
    packet = packet[:MOST_TEXT]
    found = [html.unescape(value) for value in _XMP_ATTRIBUTE.findall(packet)]
    for inner in _XMP_TEXT.findall(packet):
        value = _XMP_VALUE.search(inner)
        found.append(html.unescape(inner if value is None else value[1]))
    return {f"XMP {number}": text.strip() for number, text in enumerate(found) if text.strip()}


# --- hidden in the picture --------------------------------------------------------------------------------------------

_MARK = 15
"""Bytes of the mark before a hidden text."""


def hidden_text(image: Image.Image) -> str | None:
    """The text in the lowest bits of a picture ("stealth"), column by column: of alpha, or of red, green and blue."""
    import numpy as np

    if image.mode not in ("RGBA", "RGB"):
        return None
    pixels = np.asarray(image) & 1
    for bits, kind in ((pixels[..., 3:], "png"), (pixels[..., :3], "rgb")):
        flat = bits.transpose(1, 0, 2).reshape(-1)
        mark = np.packbits(flat[: 8 * _MARK]).tobytes()
        if mark not in (f"stealth_{kind}info".encode(), f"stealth_{kind}comp".encode()):
            continue
        count = int.from_bytes(np.packbits(flat[8 * _MARK : 8 * _MARK + 32]).tobytes(), "big")
        body = np.packbits(flat[8 * _MARK + 32 : 8 * _MARK + 32 + min(count, 8 * MOST_TEXT)]).tobytes()
        return _unzipped(body) if mark.endswith(b"comp") else body.decode("utf-8", "replace")
    return None


def _unzipped(data: bytes) -> str | None:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(MOST_TEXT).decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error):
        return None
