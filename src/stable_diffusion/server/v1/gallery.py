"""The gallery: finished pictures, searched, starred, deleted with a way back, and their files."""

from __future__ import annotations

import io
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field, StrictBool

from ...errors import StableDiffusionError
from ...images import embedded_text, opaque
from ...request.json import to_json
from ...request.writers.forms import KEY
from ..errors import ApiError
from ..schema import FORMATS, Strict
from ..service import Service, ServiceIs
from .shapes import picture_json, settings_of

router = APIRouter(prefix="/v1/gallery", tags=["gallery"])
PictureId = Annotated[str, Field(min_length=1, max_length=80)]
TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}
"""A picture's file never changes."""
MOST_OFFSET = 10_000_000


class Star(Strict):
    starred: StrictBool = True


class Several(Strict):
    """Pictures by their ids."""

    pictures: Annotated[list[PictureId], Field(min_length=1, max_length=1000)]


@router.get("", summary="Pictures, the newest first")
async def pictures(
    service: ServiceIs,
    search: Annotated[str, Query(max_length=200)] = "",
    starred: bool | None = None,
    deleted: bool = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=MOST_OFFSET)] = 0,
    before: Annotated[int | None, Query(ge=0, le=MOST_OFFSET)] = None,
) -> dict[str, Any]:
    """`search` are words that all occur in the prompt or the settings; `next` is the `before` of the following page."""
    start = offset if before is None else before
    which: dict[str, Any] = {"search": search.replace("\0", ""), "starred": starred, "deleted": deleted}
    found = await service.call(service.queue.gallery.list, **which, limit=limit, offset=start)
    total = await service.call(service.queue.gallery.count, **which)
    end = start + len(found)
    return {"pictures": [picture_json(each) for each in found], "total": total, "next": end if end < total else None}


@router.post("/delete", summary="Move pictures to the bin")
async def delete_several(service: ServiceIs, which: Several) -> dict[str, Any]:
    """They stay there for 30 days."""
    return {"pictures": await service.call(service.queue.gallery.delete, which.pictures)}


@router.post("/restore", summary="Bring pictures back from the bin")
async def restore_several(service: ServiceIs, which: Several) -> dict[str, Any]:
    return {"pictures": await service.call(service.queue.gallery.restore, which.pictures)}


@router.get("/{picture_id}", summary="A picture, and all that made it")
async def picture(service: ServiceIs, picture_id: PictureId) -> dict[str, Any]:
    """`request` are settings for POST /v1/jobs; `notes` say what the picture's text does not hold."""
    return await service.call(_whole, service, picture_id)


@router.get("/{picture_id}/file", response_class=Response, summary="Its file")
async def file(service: ServiceIs, picture_id: PictureId, format: str | None = None) -> Response:
    """As it was written, or with its settings in another `format`: png, webp or jpeg."""
    found = await service.call(service.queue.gallery.picture, picture_id)
    data = await service.call(service.queue.gallery.read, picture_id)
    kind = found.format
    if format is not None and format != kind:
        if format not in FORMATS:
            raise ApiError(422, f"format is {format[:40]!r}; expected one of {', '.join(FORMATS)}", param="format")
        data, kind = await service.call(converted, data, format), format
    name = f'inline; filename="{found.id}.{kind}"'
    return Response(data, media_type=TYPES[kind], headers={**KEPT, "Content-Disposition": name})


@router.get("/{picture_id}/thumbnail", response_class=Response, summary="A small WebP of it")
async def thumbnail(service: ServiceIs, picture_id: PictureId) -> Response:
    """At most 256 pixels a side, made once."""
    data = await service.call(service.queue.gallery.thumbnail, picture_id)
    return Response(data, media_type="image/webp", headers=KEPT)


@router.post("/{picture_id}/star", summary="Star a picture, or take the star away")
async def star(service: ServiceIs, picture_id: PictureId, wanted: Star) -> dict[str, Any]:
    await service.call(service.queue.gallery.picture, picture_id)
    await service.call(service.queue.gallery.star, [picture_id], wanted.starred)
    return picture_json(await service.call(service.queue.gallery.picture, picture_id))


@router.delete("/{picture_id}", summary="Move a picture to the bin")
async def delete(service: ServiceIs, picture_id: PictureId) -> dict[str, Any]:
    """It stays there for 30 days, and comes back by `restore`."""
    await service.call(service.queue.gallery.picture, picture_id)
    await service.call(service.queue.gallery.delete, [picture_id])
    return picture_json(await service.call(service.queue.gallery.picture, picture_id))


@router.post("/{picture_id}/restore", summary="Bring a picture back from the bin")
async def restore(service: ServiceIs, picture_id: PictureId) -> dict[str, Any]:
    await service.call(service.queue.gallery.picture, picture_id)
    await service.call(service.queue.gallery.restore, [picture_id])
    return picture_json(await service.call(service.queue.gallery.picture, picture_id))


def converted(data: bytes, kind: str, quality: int | None = None) -> bytes:
    """A picture file in another format, with the text that it carries; without a quality as good as the format can."""
    from PIL import Image

    file = io.BytesIO()
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
        image.load()
        options = embedded_text(image, kind.upper(), image.info.get(KEY))
        shown = opaque(image) if kind == "jpeg" else image
        best: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
        shown.save(file, kind.upper(), **(best if quality is None else {"quality": quality}), **options)
    return file.getvalue()


def _whole(service: Service, picture_id: str) -> dict[str, Any]:
    found = service.queue.gallery.picture(picture_id)
    answer = {**picture_json(found), "parameters": found.parameters, "request": None, "notes": []}
    try:  # the job knows all, start pictures too; where it is forgotten, the picture's own text
        job = service.queue.job(found.job)
        body = {**job.body, "count": 1}
        if isinstance(body.get("seed"), int) and not (body.get("variation") or {}).get("strength"):
            body["seed"] += found.number
        return {
            **answer,
            "request": settings_of(service.library, body),
            "notes": [service.public(n) for n in job.notes],
        }
    except StableDiffusionError:
        pass
    try:
        request, notes = service.queue.gallery.request_of(picture_id)
    except StableDiffusionError as error:
        return {**answer, "notes": [service.public(str(error))]}
    return {**answer, "request": settings_of(service.library, to_json(request)), "notes": list(notes)}
