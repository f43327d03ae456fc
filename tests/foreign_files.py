"""Picture files as other programs write them, made here: every place and code in which they put a text."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/"><exif:UserComment><rdf:Alt>'
    '<rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>'
)


def picture(kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def png(*chunks: bytes, last: bool = False) -> bytes:
    """A PNG file with chunks after its header, or before its end."""
    data = picture()
    place = len(data) - 12 if last else 33
    return data[:place] + b"".join(chunks) + data[place:]


def latin(key: str, text: str) -> bytes:
    return chunk(b"tEXt", key.encode() + b"\0" + text.encode("latin-1"))


def utf8(key: str, text: str) -> bytes:
    return chunk(b"tEXt", key.encode() + b"\0" + text.encode())


def packed(key: str, text: str) -> bytes:
    return chunk(b"zTXt", key.encode() + b"\0\0" + zlib.compress(text.encode()))


def international(key: str, text: str, *, pack: bool = False) -> bytes:
    body = zlib.compress(text.encode()) if pack else text.encode()
    return chunk(b"iTXt", key.encode() + (b"\0\1\0" if pack else b"\0\0\0") + b"\0\0" + body)


def with_exif(kind: str, body: bytes | int, tag: int = USER_COMMENT) -> bytes:
    exif = Image.Exif()
    if tag == USER_COMMENT:
        exif.get_ifd(EXIF_IFD)[tag] = body
    else:
        exif[tag] = body
    return picture(kind, exif=exif)


def damaged_exif(text: str) -> bytes:
    """A JPEG file whose tables of EXIF lead nowhere, with the comment where it was."""
    body = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40 + b"UNICODE\0" + text.encode("utf-16-be") + b"\0\0"
    return segment(0xE1, body)


def segment(marker: int, body: bytes) -> bytes:
    data = picture("JPEG", quality=95)
    return data[:2] + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


def stealth(text: str, *, pack: bool, alpha: bool) -> bytes:
    """The text in the lowest bits of the pixels, column by column."""
    body = gzip.compress(text.encode()) if pack else text.encode()
    mark = f"stealth_{'png' if alpha else 'rgb'}{'comp' if pack else 'info'}".encode()
    bits = np.unpackbits(np.frombuffer(mark + (8 * len(body)).to_bytes(4, "big") + body, np.uint8))
    pixels = np.full((400, 400, 4), 254, np.uint8)
    part = pixels[..., 3:] if alpha else pixels[..., :3]
    columns = part.transpose(1, 0, 2).copy()
    columns.reshape(-1)[: len(bits)] |= bits
    part[...] = columns.transpose(1, 0, 2)
    file = io.BytesIO()
    Image.fromarray(pixels if alpha else pixels[..., :3]).save(file, "PNG")
    return file.getvalue()


def places(kind: str) -> dict[str, Callable[[str], bytes]]:
    """EXIF of a JPEG or WebP file, with each character code."""
    return {
        f"{kind} UNICODE big-endian": lambda text: with_exif(kind, b"UNICODE\0" + text.encode("utf-16-be")),
        f"{kind} UNICODE little-endian": lambda text: with_exif(kind, b"UNICODE\0" + text.encode("utf-16-le")),
        f"{kind} UNICODE with a mark": lambda text: with_exif(kind, b"UNICODE\0" + text.encode("utf-16")),
        f"{kind} UNICODE and UTF-8": lambda text: with_exif(kind, b"UNICODE\0" + text.encode()),
        f"{kind} ASCII": lambda text: with_exif(kind, b"ASCII\0\0\0" + text.encode()),
        f"{kind} JIS": lambda text: with_exif(kind, b"JIS\0\0\0\0\0" + text.encode("iso2022_jp", "replace")),
        f"{kind} no code said": lambda text: with_exif(kind, b"\0" * 8 + text.encode()),
        f"{kind} no code": lambda text: with_exif(kind, text.encode()),
        f"{kind} description": lambda text: with_exif(kind, text.encode(), 0x010E),
        f"{kind} Windows' comment": lambda text: with_exif(kind, text.encode("utf-16-le") + b"\0\0", 0x9C9C),
    }


PLACES: dict[str, Callable[[str], bytes]] = {
    "PNG tEXt in UTF-8": lambda text: png(utf8("parameters", text)),
    "PNG zTXt": lambda text: png(packed("parameters", text)),
    "PNG iTXt": lambda text: png(international("parameters", text)),
    "PNG iTXt packed": lambda text: png(international("parameters", text, pack=True)),
    "PNG at the end": lambda text: png(utf8("parameters", text), last=True),
    "PNG another key": lambda text: png(utf8("Description", text)),
    "PNG XMP": lambda text: png(international("XML:com.adobe.xmp", XMP.format(escape(text)))),
    "PNG with a damaged chunk before": lambda text: png(chunk(b"zTXt", b"x\0\0broken"), utf8("parameters", text)),
    "PNG cut off": lambda text: png(utf8("parameters", text))[:-4000],
    "PNG with a wrong checksum": lambda text: png(utf8("parameters", text)[:-1] + b"?"),
    **places("JPEG"),
    **places("WEBP"),
    "JPEG comment": lambda text: segment(0xFE, text.encode()),
    "JPEG XMP": lambda text: segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP.format(escape(text)).encode()),
    "JPEG damaged EXIF": damaged_exif,
    "WEBP XMP": lambda text: picture("WEBP", xmp=XMP.format(escape(text)).encode()),
    "GIF comment": lambda text: picture("GIF", comment=text.encode()),
    "alpha": lambda text: stealth(text, pack=False, alpha=True),
    "alpha packed": lambda text: stealth(text, pack=True, alpha=True),
    "colours": lambda text: stealth(text, pack=False, alpha=False),
    "colours packed": lambda text: stealth(text, pack=True, alpha=False),
}
"""Where a text is put -> the file that holds it there."""
