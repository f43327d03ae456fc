"""Pictures as a run gives them: saved whole or not at all, with their settings inside; a list shows itself.

Nothing here imports torch.
"""

from __future__ import annotations

import base64
import errno
import html
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .atomic import whole_file
from .errors import InvalidRequest, StableDiffusionError, unknown_choice, what_is
from .request.metadata import shortened, user_comment
from .request.pictures import has_alpha, plain_mode
from .request.writers.files import EXIF_IFD, USER_COMMENT
from .request.writers.forms import KEY

XMP = "xmp"
"""Key of `Image.info` under which Pillow keeps an XMP packet; a panorama's is written to its file."""
MOST_EXIF, MOST_XMP = 65_000, 65_000
"""Bytes of text that a segment of a JPEG file holds: its length is a number of 16 bits."""
XMP_CHUNK, XMP_SEGMENT = "XML:com.adobe.xmp", b"http://ns.adobe.com/xap/1.0/\0"
FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("L", "LA", "P", "RGB", "RGBA"),
    "JPEG": ("L", "LA", "P", "PA", "RGB", "RGBA"),
}
"""Format -> the modes that are written as they are; others become RGB or RGBA."""
QUALITY = 95
COLUMNS = 4
"""Of pictures that a notebook shows."""


class GeneratedImage(Image.Image):
    """A Pillow image whose settings, `info["parameters"]`, go into every PNG, WebP and JPEG file that `save` writes.

    Copies, crops and conversions are such images too. JPEG knows no transparency: there the picture lies over white.
    """

    @classmethod
    def of(cls, image: Image.Image) -> GeneratedImage:
        """A copy of the picture, with its `info`."""
        made = image.copy()
        made.__class__ = cls
        assert isinstance(made, GeneratedImage)
        return made

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """As Pillow's; `pnginfo` or `exif` take the place of the settings, and None leaves them out."""
        kind = (format or _format(fp)).upper()
        image = opaque(self) if kind == "JPEG" else self
        Image.Image.save(image, fp, format, **{**embedded_text(self, kind), **params})

    def _new(self, im: Any) -> Image.Image:
        """Pillow's maker of every image derived from this one."""
        made = super()._new(im)
        made.__class__ = type(self)
        return made

    def __eq__(self, other: object) -> bool:
        """As between plain images: mode, size, info and pixels are the same."""
        if type(other) not in (Image.Image, type(self)) or not isinstance(other, Image.Image):
            return NotImplemented
        same = (self.mode, self.size, self.info, self.getpalette()) == (
            *(other.mode, other.size, other.info, other.getpalette()),
        )
        return same and self.tobytes() == other.tobytes()

    __hash__ = None  # type: ignore[assignment]  # as Pillow's images


class Pictures(list[Image.Image]):
    """A list of pictures that a notebook shows side by side.

    As an array it is [H,W,C] where it holds one picture, so that `plt.imshow` shows it, else [B,H,W,C].
    """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        pixels = np.asarray(self[0]) if len(self) == 1 else np.array([np.asarray(each) for each in self])
        return pixels if dtype is None else pixels.astype(dtype)

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: rows of four, or None where the list is empty."""
        if not self:
            return None
        width, height = max(each.width for each in self), max(each.height for each in self)
        columns = min(COLUMNS, len(self))
        sheet = Image.new("RGBA", (columns * width, -(-len(self) // columns) * height))
        for index, each in enumerate(self):
            row, column = divmod(index, columns)
            sheet.paste(each.convert("RGBA"), (column * width, row * height))
        return sheet._repr_png_()


def figures_html(images: Sequence[Image.Image], captions: Sequence[str], notes: Sequence[str] = ()) -> str:
    """Pictures side by side with a caption under each, then the notes, as HTML of a notebook; text is escaped."""
    parts = []
    for image, caption in zip(images, captions, strict=True):
        text = html.escape(caption)
        data = base64.b64encode(image._repr_png_() or b"").decode()
        parts.append(
            f'<figure style="margin:0;max-width:100%;width:{image.width}px"><img src="data:image/png;base64,{data}" '
            f'alt="{text}" style="max-width:100%"><figcaption>{text}</figcaption></figure>'
        )
    said = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    shown = f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(parts)}</div>' if parts else ""
    return f"<div>{shown}{f'<ul>{said}</ul>' if said else ''}</div>"


class ModelTable:
    """A loaded model as a notebook shows it; text is escaped."""

    def _repr_html_(self: Any) -> str:
        usual = self.defaults
        weights = sum(each.numel() for each in self.parts.unet.parameters())
        rows = {
            "Family": self.parts.family,
            "Runs on": f"{self.device}, {str(self.dtype).removeprefix('torch.')}, {self.engine.name}",
            "Parameters": f"{weights / 1e6:,.1f} million in the denoising network",
            "Size": f"{usual.width} × {usual.height}",
            "Usual settings": f"{usual.steps} steps, guidance {usual.guidance:g}, {usual.sampler}, {usual.schedule}",
            "Transparency": "yes" if self.has_alpha else "no",
            "Hash": self.hash or "",
            "Adapters": ", ".join(f"{each.name} ({each.strength:g})" for each in self.attachments),
            "Embeddings": ", ".join(name for each in self.embeddings for name in each.names),
        }
        left = 'style="text-align:left"'
        cells = (
            f"<tr><th {left}>{name}</th><td {left}>{html.escape(text)}</td></tr>" for name, text in rows.items() if text
        )
        return f"<table><caption><b>{html.escape(self.name)}</b></caption><tbody>{''.join(cells)}</tbody></table>"


def save_image(image: Image.Image, path: str | Path, *, parameters: str | None = None, overwrite: bool = True) -> Path:
    """Write a picture to PNG, WebP (both lossless, with alpha) or JPEG (over white), and return its path.

    `parameters` is the A1111 text to put inside; None takes the text that the picture itself carries (those of
    `generate_image` do), "" leaves it out. The folder is made where it is missing. The file appears under its name
    only when it is complete. InvalidRequest for an unusable name, StableDiffusionError where the disk refuses.
    """
    if not isinstance(image, Image.Image):
        raise InvalidRequest(f"the image is {what_is(image)}; expected a Pillow image")
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidRequest(f"the path is {what_is(path)}; expected the name of a file")
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise unknown_choice("picture format", path.suffix or str(path), FORMATS)
    if "\0" in str(path):
        raise InvalidRequest(f"{str(path)!r} is not a name that a file can have")
    try:
        if path.is_dir():
            raise InvalidRequest(f"{str(path)!r} is a folder; expected the name of a file")
        if path.exists() and not overwrite:
            raise InvalidRequest(f"{str(path)!r} exists; expected a new name")
        with whole_file(path) as file:
            _write(image, file, FORMATS[path.suffix.lower()], parameters)
    except OSError as error:
        raise StableDiffusionError(f"{str(path)!r} could not be written: {_reason(error)}") from error
    return path


def thumbnail_bytes(image: Image.Image, side: int) -> bytes:
    """A WebP file of the picture at no more than `side` pixels a side, with alpha, without its text."""
    small = plain_mode(image).copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    Image.Image.save(small, file, "WEBP", quality=80, method=2)  # a generated picture's own would write its text
    return file.getvalue()


def preview_bytes(image: Image.Image) -> bytes:
    """A picture that is shown for a moment, as a file made quickly: JPEG, or WebP where a pixel is transparent."""
    shown, file = plain_mode(image), io.BytesIO()
    if shown.mode == "RGBA" and shown.getchannel("A").getextrema() != (255, 255):
        Image.Image.save(shown, file, "WEBP", quality=80, method=0)
    else:
        Image.Image.save(shown.convert("RGB"), file, "JPEG", quality=80)
    return file.getvalue()


def _write(image: Image.Image, file: BinaryIO, kind: str, text: str | None) -> None:
    options = embedded_text(image, kind, text)
    image = image if image.mode in MODES[kind] else plain_mode(image)
    if kind == "PNG":
        image.save(file, kind, **options)
    elif kind == "WEBP":
        image.save(file, kind, lossless=True, exact=True, **options)
    else:
        opaque(image).save(file, kind, quality=QUALITY, subsampling=0, **options)


def embedded_text(image: Image.Image, kind: str, text: str | None = None) -> dict[str, Any]:
    """Arguments of Pillow's `save` that put a parameters text and the picture's XMP packet into a file of this format.

    `text` None is the picture's own; formats other than PNG, WEBP and JPEG hold none.
    """
    found = image.info.get(KEY) if text is None else text
    found = found if isinstance(found, str) else ""
    packet = image.info.get(XMP)
    packet = packet if isinstance(packet, bytes) else b""
    if kind == "PNG":
        return {"pnginfo": _chunks(found, packet)}
    exif = Image.Exif()
    found = _fitting(found) if kind == "JPEG" else found
    if found:
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = user_comment(found)
    if kind == "WEBP":
        return {"exif": exif, "xmp": packet}
    return {"exif": exif, "extra": _segment(packet)} if kind == "JPEG" else {}


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
    warnings.warn(f"the text of what made the picture is too long for JPEG: {what}; PNG holds all of it", stacklevel=5)
    return less


def opaque(image: Image.Image) -> Image.Image:
    """The picture as JPEG holds it: RGB, over white where it is transparent."""
    if has_alpha(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else plain_mode(image).convert("RGB")


def _format(file: Any) -> str:
    """Pillow's name of the format that a file's name asks for; "" where that cannot be said."""
    name = file if isinstance(file, (str, os.PathLike)) else getattr(file, "name", "")
    ending = Path(name).suffix.lower() if isinstance(name, (str, os.PathLike)) else ""
    return Image.registered_extensions().get(ending, "")


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
