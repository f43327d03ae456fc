"""The API of A1111's web UI (1.10): /sdapi/v1, /internal and /controlnet, for the clients that speak it.

Every route stands by itself: clients tell by 404 and 405 what a server can do. Those that would stop, restart, train or
install are not here, or say 501.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter

from ... import __version__
from ...errors import InvalidRequest
from ...request.metadata_read import written_text
from ...request.writers.infotext import split_text
from ..auth import OwnerIs
from ..errors import ApiError, ErrorShape
from ..service import ServiceIs
from ..settings import ServerSettings, is_loopback
from .answers import text_parameters, writable
from .bodies import Detect, ExtrasBatch, ExtrasSingle, Interrogate, PngInfo
from .controlnet import MOST_UNITS, control_types_json, detected, modules_json
from .extras import check_target, enlarged_file, enlarging, html_info
from .generating import generating
from .lists import (
    checkpoints_json,
    embeddings_json,
    latent_modes_json,
    loras_json,
    memory_json,
    samplers_json,
    schedulers_json,
    styles_json,
    upscalers_json,
)
from .scripts import SCRIPTS, script_info
from .state import WebUIIs

NAMES = {400: "InvalidRequest", 404: "NotFound", 422: "ValidationError", 500: "ServerError", 501: "NotImplemented"}
"""Status -> the class that the shape of errors names."""
CONTROLNET_VERSION = 3


def error_body(status: int, sentence: str, code: str, param: str | None) -> dict[str, Any]:
    """Errors as A1111 writes them."""
    return {"error": NAMES.get(status, "HTTPException"), "detail": sentence, "body": "", "errors": sentence}


ERRORS = ErrorShape(prefixes=("/sdapi", "/internal", "/controlnet"), body=error_body)


def router(settings: ServerSettings) -> APIRouter:
    """All routes of A1111's API."""
    routes = APIRouter(tags=["A1111"])
    parts = (generating(settings), _options(settings), _internal(), _lists(), _pictures(settings))
    for part in (*parts, _controlnet(settings)):
        routes.include_router(part)
    _absent(routes)
    return routes


def _options(settings: ServerSettings) -> APIRouter:
    routes = APIRouter()

    @routes.get("/sdapi/v1/options")
    async def options(webui: WebUIIs) -> dict[str, Any]:
        """The settings that mean something here; what they hold may be posted back as a whole."""
        return (await webui.options()).as_json(webui.service.library)

    @routes.post("/sdapi/v1/options")
    async def set_options(given: dict[str, Any], webui: WebUIIs) -> None:
        """Change settings; unknown ones are ignored, an unknown checkpoint is 400."""
        await webui.set_options(given)

    @routes.get("/sdapi/v1/cmd-flags")
    async def flags() -> dict[str, Any]:
        """How the server was started, without paths and secrets."""
        return {
            "api": True,
            "listen": not is_loopback(settings.host),
            "port": settings.port,
            "nowebui": False,
            "cors_allow_origins": ",".join(settings.allow_origins) or None,
            "api_auth": None,
            "enable_insecure_extension_access": False,
            "disable_safe_unpickle": False,
        }

    @routes.get("/sdapi/v1/memory")
    async def memory(service: ServiceIs) -> dict[str, Any]:
        """Bytes of memory, free and used."""
        return await service.call(memory_json)

    @routes.post("/sdapi/v1/unload-checkpoint")
    async def unload(service: ServiceIs) -> dict[str, Any]:
        """Give back the memory of the loaded models; the next job loads its own."""
        await service.call(service.release)
        return {}

    @routes.post("/sdapi/v1/reload-checkpoint")
    async def reload(webui: WebUIIs) -> dict[str, Any]:
        """Nothing needs to be done: a job loads its model where it is not in memory."""
        return {}

    return routes


def _internal() -> APIRouter:
    routes = APIRouter(prefix="/internal")

    @routes.get("/ping")
    async def ping() -> dict[str, Any]:
        """That the server is there."""
        return {}

    @routes.get("/sysinfo")
    async def sysinfo() -> dict[str, Any]:
        """Versions, without anything of the machine's owner."""
        import torch

        return {
            "Platform": platform.system(),
            "Python": platform.python_version(),
            "Version": f"stable-diffusion {__version__}",
            "Torch": torch.__version__,
        }

    return routes


def _lists() -> APIRouter:
    routes = APIRouter()
    plain: dict[str, Callable[[], Any]] = {
        "samplers": samplers_json,
        "schedulers": schedulers_json,
        "latent-upscale-modes": latent_modes_json,
        "sd-vae": list,
        "sd-modules": list,
        "hypernetworks": list,
        "face-restorers": list,
        "realesrgan-models": list,
        "extensions": list,
        "scripts": lambda: SCRIPTS,
        "script-info": script_info,
    }
    of_library: dict[str, Callable[[Any], Any]] = {
        "upscalers": upscalers_json,
        "sd-models": checkpoints_json,
        "loras": loras_json,
        "prompt-styles": styles_json,
        "prompt-style": styles_json,
        "embeddings": embeddings_json,
    }
    for name, make in plain.items():
        routes.get(f"/sdapi/v1/{name}", name=name)(_plain(make))
    for name, find in of_library.items():
        routes.get(f"/sdapi/v1/{name}", name=name)(_of_library(find))
    for name in ("checkpoints", "vae", "embeddings", "loras"):
        routes.post(f"/sdapi/v1/refresh-{name}", name=f"refresh-{name}")(_refresh)
    return routes


def _plain(make: Callable[[], Any]) -> Callable[[], Any]:
    async def route() -> Any:
        return make()

    return route


def _of_library(find: Callable[[Any], Any]) -> Callable[[ServiceIs], Any]:
    async def route(service: ServiceIs) -> Any:
        return await service.call(find, service.library)

    return route


async def _refresh(service: ServiceIs) -> None:
    """Read the folders again."""
    await service.call(service.library.refresh)


def _pictures(settings: ServerSettings) -> APIRouter:
    routes = APIRouter()
    most = settings.limits.body
    bounds = (settings.limits.side, settings.limits.pixels)

    @routes.post("/sdapi/v1/extra-single-image", max_body_size=most)
    async def single(body: ExtrasSingle, service: ServiceIs, owner: OwnerIs) -> dict[str, Any]:
        """One picture enlarged: `image` (base64) and `html_info`."""
        plan = enlarging(body, service.library)
        image = await service.open_picture(body.image, "image")
        check_target(body, image.size, *bounds)
        made = await service.call(enlarged_file, image, body, plan, partial(service.enlarged, owner=owner))
        return {"html_info": html_info([made], plan), "image": made.text}

    @routes.post("/sdapi/v1/extra-batch-images", max_body_size=most)
    async def batch(body: ExtrasBatch, service: ServiceIs, owner: OwnerIs) -> dict[str, Any]:
        """Several pictures enlarged: `images` (base64) and `html_info`."""
        plan, made = enlarging(body, service.library), []
        for each in body.imageList:
            image = await service.open_picture(each.data, "imageList")
            check_target(body, image.size, *bounds)
            made.append(await service.call(enlarged_file, image, body, plan, partial(service.enlarged, owner=owner)))
        return {"html_info": html_info(made, plan), "images": [each.text for each in made]}

    @routes.post("/sdapi/v1/png-info", max_body_size=most)
    async def png_info(body: PngInfo, service: ServiceIs) -> dict[str, Any]:
        """The settings in a picture: as text, and taken apart."""
        if not body.image.strip():
            return {"info": "", "items": {}, "parameters": {}}
        image = await service.open_picture(body.image, "image")
        texts = {name: value for name, value in image.info.items() if isinstance(name, str) and isinstance(value, str)}
        items = {writable(name): writable(value) for name, value in texts.items() if name != "parameters"}
        found: str | None = await service.call(written_text, image)
        text = writable(found or "")
        return {"info": text, "items": items, "parameters": text_parameters(text)}

    @routes.post("/sdapi/v1/interrogate", max_body_size=most, include_in_schema=False)  # 501 is no fault here
    async def interrogate(body: Interrogate, service: ServiceIs) -> dict[str, Any]:
        """The prompt that the picture carries, as `caption`; 501 for one without: no model here describes pictures."""
        if not body.image.strip():
            raise ApiError(404, "image is empty; expected a picture in base64", param="image")
        image = await service.open_picture(body.image, "image")
        found: str | None = await service.call(written_text, image)
        prompt = split_text(writable(found or ""))[0].strip()
        if not prompt:
            raise ApiError(501, "the picture carries no prompt, and there is no model here that describes pictures")
        return {"caption": prompt}

    return routes


def _controlnet(settings: ServerSettings) -> APIRouter:
    routes = APIRouter(prefix="/controlnet")

    @routes.get("/version")
    async def version() -> dict[str, Any]:
        """The version of the extension's API."""
        return {"version": CONTROLNET_VERSION}

    @routes.get("/model_list")
    async def models(service: ServiceIs) -> dict[str, Any]:
        """Controls by name."""
        return {"model_list": list(await service.call(service.library.controls.entries))}

    @routes.get("/module_list")
    async def modules() -> dict[str, Any]:
        """Preprocessors, and what their thresholds are."""
        return modules_json()

    @routes.get("/control_types")
    async def types(service: ServiceIs) -> dict[str, Any]:
        """Preprocessors and models that belong together."""
        return await service.call(control_types_json, service.library)

    @routes.get("/settings")
    async def extension_settings() -> dict[str, Any]:
        """How many units a request may have."""
        return {"control_net_unit_count": MOST_UNITS}

    @routes.post("/detect", max_body_size=settings.limits.body)
    async def detect(body: Detect, service: ServiceIs) -> dict[str, Any]:
        """What a preprocessor makes of pictures."""
        texts = body.controlnet_images or body.controlnet_input_images
        if not texts:
            raise ApiError(422, "controlnet_input_images is empty; expected a picture in base64")
        thresholds, made = (body.controlnet_threshold_a, body.controlnet_threshold_b), []
        for text in texts:
            image = await service.open_picture(text, "controlnet_input_images")
            if image.width * image.height > settings.limits.pixels:
                raise InvalidRequest(
                    f"controlnet_input_images has a picture of {image.width}x{image.height} pixels; expected at most "
                    f"{settings.limits.pixels} in all"
                )
            made.append(await service.call(detected, image, body.controlnet_module, *thresholds))
        return {"images": made, "info": "Success"}

    return routes


def _absent(routes: APIRouter) -> None:
    """Routes that A1111 has and that say here, in a sentence, that they do nothing; the schema is without them."""
    for name in ("create/embedding", "create/hypernetwork", "train/embedding", "train/hypernetwork"):
        routes.post(f"/sdapi/v1/{name}", name=name, include_in_schema=False)(_training)


async def _training() -> None:
    """501: training is a command."""
    raise ApiError(501, "models are not trained over this API; see `stable-diffusion train`")
