"""The routes of OpenAI's images API: /v1/images/generations, edits and variations, /v1/models.

The pictures' routes answer without /v1 too, for addresses of servers that were typed so.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse, Response

from ...errors import InvalidRequest, StableDiffusionError
from ..auth import OwnerIs
from ..errors import ApiError
from ..service import Service, ServiceIs
from ..settings import ServerSettings
from ..v1.gallery import KEPT, TYPES
from ..v1.inputs import read_settings_of
from .answering import ERRORS, images_answer, model_json
from .asking import VARIATION, Asked, asked_settings, in_words_of_openai, model_of
from .encoding import BEST, as_asked
from .fields import ImageFields, checked_fields
from .links import PLACE, Links
from .reading import Given, given_pictures, json_body
from .streaming import PictureStream, picture_events
from .waiting import Waiting

__all__ = ["ERRORS", "openai_router"]
SINCE = 1_690_000_000
"""When models were made, as far as this API knows: clients show a date, and files have others."""
OTHER_APIS = ("/v1/responses", "/v1/chat/completions", "/v1/completions", "/v1/embeddings")
FOREVER = {**KEPT, "Cross-Origin-Resource-Policy": "cross-origin"}
"""Pages of others may show a picture whose address they were given."""


class OpenAI:
    """The state of OpenAI's API on one server."""

    def __init__(self, service: Service) -> None:
        self.service, self.waiting, self.links = service, Waiting(service), Links(service)


async def get_openai(connection: HTTPConnection, service: ServiceIs) -> OpenAI:
    """The state of the application that is asked."""
    state = connection.app.state
    if getattr(state, "openai", None) is None:
        found = await service.call(OpenAI, service)
        state.openai = getattr(state, "openai", None) or found
    known: OpenAI = state.openai
    return known


OpenAIIs = Annotated[OpenAI, Depends(get_openai)]
"""A parameter of a route that is the state of OpenAI's API."""


def openai_router(settings: ServerSettings) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["OpenAI"])
    large: dict[str, Any] = {"methods": ["POST"], "max_body_size": settings.limits.body, "response_model": None}

    async def generations(http: Request, openai: OpenAIIs, owner: OwnerIs) -> Response:
        """Pictures of a text. The answer holds `b64_json`, `url` or both; with `stream` it is events."""
        fields = checked_fields(await json_body(http), text=False, prompt=True)
        return await _answer(openai, http, owner, fields, Given({}), "image_generation")

    async def edits(http: Request, openai: OpenAIIs, owner: OwnerIs) -> Response:
        """Pictures of a picture and a text. Where the mask is transparent, the picture is made again."""
        given = await given_pictures(http)
        fields = checked_fields(given.fields, text=given.text, prompt=True)
        _check_image(given)
        return await _answer(openai, http, owner, fields, given, "image_edit")

    async def variations(http: Request, openai: OpenAIIs, owner: OwnerIs) -> Response:
        """Pictures like a picture: by the prompt that it carries, or by the picture alone."""
        given = await given_pictures(http)
        fields = checked_fields(given.fields, text=given.text, prompt=False)
        _check_image(given)
        fields = fields.model_copy(update=await openai.service.call(_variation, openai.service, fields, given))
        return await _answer(openai, http, owner, fields, given, "image_edit")

    for name, route in (("generations", generations), ("edits", edits), ("variations", variations)):
        routes.add_api_route(f"/v1/images/{name}", route, **large)
        routes.add_api_route(f"/images/{name}", route, include_in_schema=False, **large)
    _add_models(routes)
    _add_files(routes)
    for path in OTHER_APIS:
        routes.add_api_route(path, other_api, methods=["POST"], include_in_schema=False, response_model=None)
    return routes


async def other_api() -> None:
    """An API that this server has not."""
    raise ApiError(404, "this server has OpenAI's images API alone: /v1/images/generations, edits and variations")


def _add_models(routes: APIRouter) -> None:
    @routes.get("/v1/models")
    async def models(service: ServiceIs) -> dict[str, Any]:
        """The models of the server, the default one first."""
        names = await service.call(listed_names, service)
        return {"object": "list", "data": [model_json(name, SINCE) for name in names]}

    @routes.get("/v1/models/{name}")
    async def model(service: ServiceIs, name: Annotated[str, Path(max_length=300)]) -> dict[str, Any]:
        """One of them; names of OpenAI's mean the default one."""
        await service.call(model_of, ImageFields(model=name), service)
        return dict(model_json(name, SINCE))


def listed_names(service: Service) -> list[str]:
    """The names of the models, that of the default one first."""
    first = service.library.default_model().name
    return [first, *(name for name in service.library.models.entries() if name != first)]


def _add_files(routes: APIRouter) -> None:
    @routes.get(PLACE + "/{signature}/{name}", response_class=Response)
    async def file(
        openai: OpenAIIs,
        signature: Annotated[str, Path(max_length=64)],
        name: Annotated[str, Path(max_length=100)],
        quality: Annotated[int, Query(ge=0, le=BEST)] = BEST,
    ) -> Response:
        """A picture under the address that an answer gave."""
        picture_id, _, kind = name.rpartition(".")
        openai.links.check(picture_id, signature)
        if kind not in TYPES:
            raise ApiError(404, "there is no such picture", code="not_found")
        data = await openai.service.call(openai.service.queue.gallery.read, picture_id)
        data = await openai.service.call(as_asked, data, kind, quality)
        headers = {**FOREVER, "Content-Disposition": f'inline; filename="{picture_id}.{kind}"'}
        return Response(data, media_type=TYPES[kind], headers=headers)


def _check_image(given: Given) -> None:
    if not given.images:
        raise ApiError(400, "image is missing", code="missing_required_parameter", param="image")


def _variation(service: Service, fields: ImageFields, given: Given) -> dict[str, Any]:
    """What a variation has that was not asked for."""
    found: dict[str, Any] = {} if fields.strength is not None else {"strength": VARIATION}
    if not fields.prompt:
        found["prompt"] = prompt_inside(service, given.images[0])
    return found


def prompt_inside(service: Service, data: bytes) -> str:
    """The prompt that a picture carries; "" where there is none that can be used."""
    try:
        found = read_settings_of(service, data)["request"].get("prompt")
    except StableDiffusionError:
        return ""
    return found if isinstance(found, str) and len(found) <= service.settings.limits.prompt else ""


async def _answer(
    openai: OpenAI, http: Request, owner: str, fields: ImageFields, given: Given, kind: str
) -> JSONResponse | Response:
    """Run what is asked for, and answer with its pictures or its events."""
    service = openai.service
    try:
        asked = await service.call(asked_settings, fields, service, given.images, given.mask)
        request = await service.request(asked.settings)
    except InvalidRequest as error:
        raise in_words_of_openai(error) from None
    if fields.stream:
        early = service.queue.subscribe(owner=owner, previews=bool(fields.partial_images))
        try:
            job = await openai.waiting.submit(request, owner, http)
        except BaseException:
            early.close()
            raise
        return picture_events(PictureStream(service, asked, job, kind), openai.waiting, http, early)
    job = await openai.waiting.submit(request, owner, http)
    finished = await openai.waiting.finished(job, http)
    return JSONResponse(await _whole_answer(asked, finished, openai.links, str(http.base_url)))


async def _whole_answer(asked: Asked, finished: Any, links: Links, base: str) -> dict[str, Any]:
    files = [await finished.read(number) for number in range(len(finished.pictures))]
    answer: dict[str, Any] = await finished.service.call(images_answer, asked, finished, files, links, base)
    return answer
