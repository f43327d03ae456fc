"""Enlarging finished pictures, as jobs of the queue."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from ..auth import OwnerIs
from ..errors import ApiError
from ..schema import PICTURE_TEXT, Name, Strict
from ..service import ServiceIs
from ..settings import ServerSettings
from .jobs import Key, accepted

Side = Annotated[int, Field(ge=1, le=16_384, strict=True)]


class UpscaleSettings(Strict):
    """What is enlarged, by what, and how far: by `scale`, or until it covers `width` x `height`."""

    image: Annotated[str, Field(max_length=PICTURE_TEXT)]
    upscaler: Name = "Lanczos"
    scale: Annotated[float, Field(gt=0, le=16)] | None = None
    width: Side | None = None
    height: Side | None = None
    crop: bool = False
    priority: Annotated[int, Field(ge=-100, le=100, strict=True)] = 0

    def check(self) -> None:
        """ApiError where scale, width and height do not go together."""
        if (self.width is None) != (self.height is None):
            raise ApiError(422, "width and height belong together; give both, or scale", param="width")
        if self.width is not None and self.scale is not None:
            raise ApiError(422, "scale and width x height say it twice; give one of them", param="scale")


def router(settings: ServerSettings) -> APIRouter:
    """POST /v1/upscale."""
    routes = APIRouter(prefix="/v1", tags=["jobs"])

    @routes.post("/upscale", status_code=202, max_body_size=settings.limits.body, summary="Enlarge a picture")
    async def upscale(
        service: ServiceIs, owner: OwnerIs, given: UpscaleSettings, idempotency_key: Key = None
    ) -> JSONResponse:
        """`image` is base64 of a PNG, JPEG or WebP file, a data URI, sha256:HASH or picture:ID; `upscaler` a name of
        /v1/capabilities. The job is as those of /v1/jobs."""
        given.check()
        job = await service.upscale(
            await service.open_picture(given.image),
            given.model_dump(exclude={"image", "priority"}, exclude_none=True),
            owner,
            priority=given.priority,
            idempotency=idempotency_key,
        )
        return await accepted(service, job)

    return routes
