"""Pictures that clients give: uploaded once and named by their hash, read for their settings, or preprocessed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from ...images import thumbnail_bytes
from ...pipeline.tasks.preprocess import preprocessed
from ...request.control import PREPROCESSORS
from ...request.json import to_json
from ...request.metadata_read import picture_text, read_text
from ...request.pictures import crop
from ...request.request import Request as PictureRequest
from ..errors import ApiError
from ..pictures import STARTS, decode, png
from ..schema import Strict
from ..service import Service, ServiceIs
from ..settings import ServerSettings
from .shapes import settings_of

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=8, le=4096, strict=True)]
ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/png", "image/jpeg", "image/webp")
        },
    }
}


class Preprocess(Strict):
    """A picture, and what to make of it for a control."""

    image: Annotated[str, Field(max_length=100_000_000)]
    preprocessor: Annotated[str, Field(max_length=40)] = "none"
    threshold_a: Annotated[float, Field(ge=0, le=255, strict=True)] | None = None
    threshold_b: Annotated[float, Field(ge=0, le=255, strict=True)] | None = None
    width: Side | None = None
    height: Side | None = None


def router(settings: ServerSettings) -> APIRouter:
    """The routes of given pictures."""
    routes = APIRouter(prefix="/v1", tags=["pictures given"])
    large: dict[str, Any] = {"max_body_size": settings.limits.body}

    async def upload(service: ServiceIs, http: Request) -> JSONResponse:
        """The body is a PNG, JPEG or WebP file. `pic` names it in the settings of a job; it is kept for a day, and as
        long as a job needs it."""
        data = await picture_body(http)
        return JSONResponse(await service.call(_upload, service, data), 201)

    async def preprocess(service: ServiceIs, asked: Preprocess) -> Response:
        """What a control would read: the PNG of the preprocessed picture."""
        return Response(await service.call(_preprocess, service, asked), media_type="image/png")

    async def read(service: ServiceIs, http: Request) -> dict[str, Any]:
        """The settings in a picture file of any tool: the body is the file. `request` is for POST /v1/jobs, `notes` say
        what could not be taken over."""
        data = await picture_body(http)
        return await service.call(read_settings_of, service, data)

    add = routes.add_api_route
    add("/inputs", upload, methods=["POST"], status_code=201, openapi_extra=BODY, summary="Upload a picture", **large)
    add("/read", read, methods=["POST"], openapi_extra=BODY, summary="Settings in a picture file", **large)
    image: dict[str, Any] = {"response_class": Response, "summary": "Preprocess a picture", **large}
    add("/preprocess", preprocess, methods=["POST"], **image)
    add("/controls/preview", preprocess, methods=["POST"], operation_id="preview_control", **image)

    @routes.get("/inputs/{digest}", response_class=Response, summary="An uploaded picture")
    async def show(
        service: ServiceIs, digest: Hash, size: Annotated[int | None, Query(ge=16, le=2048)] = None
    ) -> Response:
        """Its pixels as a new PNG, or a WebP of `size` pixels; never the file as it came."""
        kind = "image/png" if size is None else "image/webp"
        data = await service.call(_shown, service, digest, size)
        return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=86400, immutable"})

    return routes


async def picture_body(http: Request) -> bytes:
    """The body, which must be called a picture: so no form of another site can send it."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("image/png", "image/jpeg", "image/webp", "application/octet-stream"):
        raise ApiError(415, f"the body is {kind[:60] or 'of no type'!r}; expected image/png, image/jpeg or image/webp")
    return await http.body()


def _upload(service: Service, data: bytes) -> dict[str, Any]:
    image = decode(data, "the picture", service.settings.limits.image_pixels)
    digest = service.queue.upload(data)
    return {
        "hash": digest,
        "pic": f"sha256:{digest}",
        "width": image.width,
        "height": image.height,
        "bytes": len(data),
        "url": f"/v1/inputs/{digest}",
    }


def _shown(service: Service, digest: str, size: int | None) -> bytes:
    image = service.picture(f"sha256:{digest}", "the picture")
    return png(image) if size is None else thumbnail_bytes(image, size)


def _preprocess(service: Service, asked: Preprocess) -> bytes:
    if asked.preprocessor not in PREPROCESSORS:
        names = ", ".join(PREPROCESSORS)
        raise ApiError(422, f"preprocessor is {asked.preprocessor!r}; expected one of {names}", param="preprocessor")
    image = service.picture(asked.image)
    if asked.width is not None and asked.height is not None:
        image = crop(image, asked.width, asked.height)
    return png(preprocessed(image, asked.preprocessor, asked.threshold_a, asked.threshold_b))


def read_settings_of(service: Service, data: bytes) -> dict[str, Any]:
    """What made a picture, as settings of a job."""
    image = decode(data, "the picture", service.settings.limits.image_pixels)
    ending = next(ENDINGS[kind] for start, kind in STARTS if data.startswith(start))
    with tempfile.TemporaryDirectory() as folder:  # the readers of texts take a file, for its chunks
        path = Path(folder) / f"picture{ending}"
        path.write_bytes(data)
        text = picture_text(path)
    found = read_text(PictureRequest, text)
    request = settings_of(service.library, to_json(found.request))
    notes = [service.public(note) for note in found.notes]
    model = request.get("model")
    if model is not None and model not in service.library.models.entries():
        notes.append(f"the model {str(model)[:80]!r} is not in the list of this server")
        del request["model"]
    return {
        "source": "stable-diffusion" if found.ours else "another program",
        "width": image.width,
        "height": image.height,
        "parameters": text,
        "values": json.loads(json.dumps(found.values)),
        "request": request,
        "notes": notes,
    }
