"""Pictures of ComfyUI's clients: uploaded, and shown."""

from __future__ import annotations

import io
import json
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from ...request.json import picture_base64
from ..errors import ApiError
from ..openai.encoding import as_asked
from ..pictures import decode, png
from ..service import Service
from .state import Comfy

CHANNELS = ("rgba", "rgb", "a")
TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


async def uploaded(comfy: Comfy, http: Request, *, mask: bool) -> dict[str, str]:
    """Keep a picture of a form; with `mask` its transparency is put into the picture that `original_ref` names."""
    try:
        async with http.form(max_files=2, max_fields=10) as form:
            given, fields = form.get("image"), {name: value for name, value in form.items() if isinstance(value, str)}
            if not isinstance(given, UploadFile):
                raise ApiError(400, "image is missing; expected a picture file", param="image")
            data, name = await given.read(), given.filename or "picture.png"
    except MultiPartException as error:
        raise ApiError(400, f"the form cannot be read: {error.message}") from None
    if mask:
        data = await comfy.service.call(_with_mask, comfy, data, fields.get("original_ref", ""))
    digest = await comfy.service.call(_kept, comfy.service, data)
    overwrite = fields.get("overwrite", "").lower() in ("true", "1")
    return {"name": comfy.upload(name, digest, overwrite=overwrite), "subfolder": "", "type": "input"}


def _kept(service: Service, data: bytes) -> str:
    decode(data, "the picture", service.settings.limits.image_pixels)
    return service.queue.upload(data)


def _with_mask(comfy: Comfy, data: bytes, original: str) -> bytes:
    """The original picture with the transparency of a mask."""
    most = comfy.service.settings.limits.image_pixels
    try:
        name = str(json.loads(original)["filename"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ApiError(400, "original_ref names no picture", param="original_ref") from None
    text = comfy.picture_text(name)
    if text is None:
        raise ApiError(404, "there is no picture of that name", param="original_ref")
    mask = decode(data, "the mask", most).convert("RGBA")
    image = comfy.service.picture(text, "the picture").convert("RGB")
    image.putalpha(mask.getchannel("A").resize(image.size))
    return png(image)


async def shown(comfy: Comfy, name: str, channel: str, preview: str) -> Response:
    """A picture by the name that a node showed, or that an upload got."""
    if channel not in CHANNELS:
        raise ApiError(400, f"channel is {channel[:40]!r}; expected one of {', '.join(CHANNELS)}", param="channel")
    kind, _, quality = preview.partition(";")
    kind = kind if kind in ("webp", "jpeg") else "png"
    level = int(quality) if quality.isascii() and quality.isdigit() and len(quality) < 4 else 90
    data = await comfy.service.call(_file, comfy, name, channel)
    if preview:
        data = await comfy.service.call(as_asked, data, kind, min(level, 100))
    safe = "".join(sign for sign in name if sign.isascii() and (sign.isalnum() or sign in "-_."))[:100] or "picture"
    return Response(data, media_type=TYPES[kind], headers={"Content-Disposition": f'inline; filename="{safe}"'})


def _file(comfy: Comfy, name: str, channel: str) -> bytes:
    text = comfy.picture_text(name)
    if text is None:
        raise ApiError(404, "there is no picture of that name")
    place, _, key = text.partition(":")
    if place == "picture" and channel == "rgba":
        return comfy.service.queue.gallery.read(key)
    image = comfy.service.picture(text, "the picture")
    return png(image) if channel == "rgba" else _channel(image, channel)


def _channel(image: Image.Image, channel: str) -> bytes:
    file = io.BytesIO()
    whole = image.convert("RGBA")
    if channel == "rgb":
        whole.convert("RGB").save(file, "PNG")
    else:
        black = Image.new("RGBA", whole.size)
        black.putalpha(whole.getchannel("A"))
        black.save(file, "PNG")
    return file.getvalue()


def opened_source(comfy: Comfy, image: str, masked: str | None) -> dict[str, Any] | None:
    """Start picture and mask of a request, by their names; None where one is not there.

    As LoadImage does: the picture without its transparency, and as mask what is transparent.
    """
    text = comfy.picture_text(image)
    mask_text = None if masked is None else comfy.picture_text(masked)
    if text is None or (masked is not None and mask_text is None):
        return None
    opened = comfy.service.picture(text, "image")
    found = {"image": picture_base64(opened.convert("RGB"))}
    if mask_text is not None:
        alpha = comfy.service.picture(mask_text, "mask").convert("RGBA").getchannel("A")
        found["mask"] = picture_base64(alpha.point(lambda value: 255 - value).resize(opened.size))
    return found
