"""A picture file without what is written beside its pixels, for files of which only that is damaged."""

from __future__ import annotations

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_SHOWN = (b"tRNS", b"gAMA", b"sRGB")
"""Chunks of a PNG file that change its colours; those that begin with a capital are the picture itself."""
_WEBP_TEXTS = (b"EXIF", b"XMP ", b"ICCP")


def without_texts(data: bytes) -> bytes | None:
    """The file without texts, EXIF, XMP and profiles; None where it is none of the formats that hold them."""
    if data.startswith(PNG):
        return _bare_png(data)
    if data.startswith(JPEG):
        return _bare_jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _bare_webp(data)
    return None


def _bare_png(data: bytes) -> bytes:
    kept, place = [PNG], len(PNG)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        if kind[:1].isupper() or kind in _SHOWN:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def _bare_jpeg(data: bytes) -> bytes:
    """Without segments for applications and comments, but for Adobe's, which says how colours are stored."""
    kept, place = [JPEG], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind == 0xDA:
            break
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if not (0xE1 <= kind <= 0xEF and kind != 0xEE) and kind != 0xFE:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])


def _bare_webp(data: bytes) -> bytes:
    kept, place = [], 12
    while place + 8 <= len(data):
        kind, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        end = place + 8 + length + length % 2
        if kind == b"VP8X":
            flags = bytes([data[place + 8] & 0x12])  # alpha and animation
            kept.append(data[place : place + 8] + flags + data[place + 9 : end])
        elif kind not in _WEBP_TEXTS:
            kept.append(data[place:end])
        place = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + len(body).to_bytes(4, "little") + body
