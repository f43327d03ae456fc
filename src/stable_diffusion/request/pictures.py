"""Pictures as they are given: opened, turned upright, and brought to a plain mode and size; Pillow is imported late."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, what_is
from .writers.bare import without_texts

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 2**28
"""Pictures of more pixels are refused before they are read."""


def open_picture(source: Any, what: str = "image") -> Image.Image:
    """A Pillow picture of any usual form of one, turned upright as its EXIF says.

    source   a Pillow image; a path; the bytes of a picture file, or an open one; a numpy array [H,W], [H,W,1], [H,W,3]
             or [H,W,4], or a torch tensor [H,W] or [C,H,W] (a batch of one too): whole numbers are 0 to 255, and
             others 0 to 1

    InvalidRequest where a file is missing, not a picture, damaged or far too large, or an array has another form.
    """
    from PIL import Image, ImageOps

    if isinstance(source, str) and not source:
        raise InvalidRequest(f"{what} is the empty text; expected the path of a picture file")
    if isinstance(source, (str, PathLike)):
        source = _from_path(Path(source), what)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        source = _read(io.BytesIO(source), what, f"of {len(source)} bytes")
    elif callable(getattr(source, "read", None)):
        source = _read(source, what, repr(getattr(source, "name", "in an open file")))
    elif not isinstance(source, Image.Image) and hasattr(source, "__array__") and hasattr(source, "shape"):
        source = _from_array(source, what)
    if not isinstance(source, Image.Image):
        raise InvalidRequest(
            f"{what} is {what_is(source)}; expected a Pillow image, the path or bytes of a picture, or an array"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ImageOps.exif_transpose(source)
    except Exception:  # damaged EXIF raises anything, and a picture without it is as good
        return source


def _from_path(path: Path, what: str) -> Image.Image:
    if path.is_dir():
        raise InvalidRequest(f"{what} {str(path)!r} is a folder; expected a picture file")
    if not path.is_file():
        raise InvalidRequest(f"{what} {str(path)!r} does not exist")
    return _read(path, what, repr(str(path)))


def _read(source: Any, what: str, name: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        return _opened(source, what, name)
    except UnidentifiedImageError:
        message = f"{what} {name} is not a picture that Pillow can read"
        error: Exception | None = None
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as caught:
        if isinstance(caught, InvalidRequest):
            raise
        message, error = f"{what} {name} cannot be read: {caught}", caught
    except (struct.error, EOFError, OverflowError, KeyError, IndexError, AttributeError) as caught:
        message, error = f"{what} {name} cannot be read: {caught}", caught
    plain = without_texts(_bytes(source))
    if plain is not None:
        try:
            return _opened(io.BytesIO(plain), what, name)
        except Exception:  # the picture itself is damaged: the first reason is the better one
            pass
    raise InvalidRequest(message) from error


def _opened(source: Any, what: str, name: str) -> Image.Image:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InvalidRequest(f"{what} {name} has {image.width}x{image.height} pixels, which is too many")
            image.load()
            return image


def _bytes(source: Any) -> bytes:
    """All of a file that is open or named."""
    try:
        if isinstance(source, PathLike):
            return Path(source).read_bytes()
        source.seek(0)
        found = source.read()
        return found if isinstance(found, bytes) else b""
    except (OSError, ValueError):
        return b""


def _from_array(source: Any, what: str) -> Image.Image:
    """A picture of a numpy array (channels last) or a torch tensor (channels first)."""
    import numpy as np
    from PIL import Image

    is_tensor = callable(getattr(source, "detach", None))
    pixels = np.asarray(source.detach().cpu().float() if is_tensor and source.is_floating_point() else source)
    if is_tensor:
        pixels = pixels[0] if pixels.ndim == 4 and len(pixels) == 1 else pixels
        pixels = np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 else pixels
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4)) or 0 in pixels.shape:
        form = "[C,H,W] with C of 1, 3 or 4" if is_tensor else "[H,W], [H,W,3] or [H,W,4]"
        raise InvalidRequest(f"{what} has the shape {list(source.shape)}; expected {form}")
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    if pixels.dtype == np.uint16 and pixels.max() > 255:
        pixels = (pixels / np.float64(257)).round().astype(np.uint8)
    if pixels.dtype == bool:
        pixels = pixels * np.float32(1)
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS or pixels.dtype.kind not in "uif":
        raise InvalidRequest(f"{what} is an array of {pixels.dtype} {list(source.shape)}; expected the pixels of one")
    whole, top = pixels.dtype.kind in "ui", 255 if pixels.dtype.kind in "ui" else 1
    if not (float(pixels.min()) >= 0 and float(pixels.max()) <= top):  # NaN is refused too
        low, high = float(pixels.min()), float(pixels.max())
        kind = "whole numbers" if whole else "numbers"
        raise InvalidRequest(f"{what} holds {kind} from {low:g} to {high:g}; expected 0 to {top}")
    return Image.fromarray((pixels if whole else (pixels * 255).round()).astype(np.uint8))


def has_alpha(image: Image.Image) -> bool:
    """Whether the picture can be transparent somewhere."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def plain_mode(image: Image.Image) -> Image.Image:
    """Any mode as RGB or RGBA, 8 bits; 16-bit and float greys keep their brightness."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    wanted = "RGBA" if has_alpha(image) else "RGB"
    if image.mode == wanted:
        return image
    try:
        return image.convert(wanted)
    except ValueError:  # Lab, which Pillow converts by a profile alone
        return image.convert("L").convert(wanted) if image.mode != "LAB" else _from_lab(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey of 16 or 32 bits, or of floats up to 1, 255 or 65535; what is no number is black."""
    import numpy as np
    from PIL import Image

    grey = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    brightest = grey.max(initial=0.0)
    top = 65535.0 if image.mode.startswith("I;16") or brightest > 255 else 255.0 if brightest > 1 else 1.0
    return Image.fromarray((grey.clip(0, top) * (255 / top)).round().astype(np.uint8))


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    pair = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    found = ImageCms.profileToProfile(image, *pair, outputMode="RGB")
    assert found is not None
    return found


USUAL_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La")


def mode_note(image: Image.Image, what: str) -> str | None:
    """What is done to a picture of an unusual mode; None where it is a usual one."""
    if image.mode in USUAL_MODES:
        return None
    return f"the {what} is of mode {image.mode}; it is read as RGB with 8 bits a channel"


def grey_mask(mask: Image.Image) -> Image.Image:
    """Mode L; white says repaint. A transparent part of the mask counts as black."""
    from PIL import Image

    flat = plain_mode(mask)
    if flat.mode == "RGBA":
        flat = Image.alpha_composite(Image.new("RGBA", flat.size, (0, 0, 0, 255)), flat)
    return flat.convert("L")


def cover(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture at exactly this size: scaled to cover it and cropped at the middle, nothing distorted.

    A picture that already has the size is given back untouched.
    """
    from PIL import Image, ImageOps

    if image.size == (width, height):
        return image
    return ImageOps.fit(plain_mode(image), (width, height), method=Image.Resampling.LANCZOS)


def stretch(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture at this size, its proportions lost."""
    from PIL import Image

    return image.resize((width, height), Image.Resampling.LANCZOS)


def crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture scaled to cover this size, and its middle."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS)


def fill(image: Image.Image, width: int, height: int) -> Image.Image:
    """The whole picture fitted into this size; the rest repeats its border."""
    from PIL import Image, ImageOps

    inner = ImageOps.contain(image, (width, height), method=Image.Resampling.LANCZOS)
    left, top = (width - inner.width) // 2, (height - inner.height) // 2
    end_x, end_y = left + inner.width, top + inner.height
    filled = Image.new(image.mode, (width, height))
    filled.paste(inner, (left, top))
    for box, place in (
        ((left, top, left + 1, end_y), (0, top, left, end_y)),
        ((end_x - 1, top, end_x, end_y), (end_x, top, width, end_y)),
        ((0, top, width, top + 1), (0, 0, width, top)),
        ((0, end_y - 1, width, end_y), (0, end_y, width, height)),
    ):
        size = (place[2] - place[0], place[3] - place[1])
        if min(size) > 0:
            filled.paste(filled.crop(box).resize(size, Image.Resampling.NEAREST), place)
    return filled


RESIZES: dict[str, Callable[[Image.Image, int, int], Image.Image]] = {"stretch": stretch, "crop": crop, "fill": fill}
"""Ways in which a control's picture comes to size."""
