"""What this server can do, from which a page builds its form: lists, ranges, defaults by model, limits."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from ... import __version__
from ...request.control import MODES, PREPROCESSORS, RESIZES
from ...request.names import AUTOMATIC, SAMPLERS, SCHEDULES
from ...request.settings import BACKGROUNDS, EMPHASES, FILLS, RESAMPLERS, TILINGS, UPSCALERS
from ..errors import ApiError
from ..library import Entry, trigger_words
from ..schema import FORMATS, request_settings
from ..service import Service, ServiceIs

router = APIRouter(prefix="/v1", tags=["capabilities"])
KINDS = ("models", "loras", "embeddings", "controls", "upscalers")


@router.get("/capabilities", summary="Models, samplers, lists, ranges, defaults, limits")
async def capabilities(service: ServiceIs) -> dict[str, Any]:
    """Everything that a form for pictures is made of. Names are what POST /v1/jobs takes."""
    return await service.call(_capabilities, service)


@router.post("/refresh", summary="Read the folders again")
async def refresh(service: ServiceIs) -> dict[str, Any]:
    """Models, LoRAs and the rest that were added since; the answer is that of /v1/capabilities."""
    service.library.refresh()
    return await service.call(_capabilities, service)


@router.get("/previews/{kind}/{name}", summary="The picture beside a model or LoRA")
async def preview(service: ServiceIs, kind: str, name: str) -> Response:
    """A small WebP of the picture that lies beside the file."""
    if kind not in KINDS:
        raise ApiError(404, f"there is no list {kind[:40]!r}; there are {', '.join(KINDS)}")
    entry = getattr(service.library, kind).find(name)
    if entry.preview is None:
        raise ApiError(404, f"{name[:80]!r} has no preview")
    data = await service.call(service.small_file, entry.preview)
    return Response(data, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})


def _capabilities(service: Service) -> dict[str, Any]:
    library, settings = service.library, service.settings
    styles = [{"name": name, **dataclasses.asdict(style)} for name, style in library.styles().items()]
    return {
        "version": __version__,
        "models": [_model(service, entry) for entry in library.models.entries().values()],
        "default_model": library.default_model().name,
        "samplers": [
            {"id": each.id, "label": each.label, "aliases": list(each.aliases), "schedule": each.schedule}
            for each in SAMPLERS.values()
        ],
        "schedules": [
            {"id": AUTOMATIC, "label": "Automatic"},
            *({"id": each.id, "label": each.label} for each in SCHEDULES.values()),
        ],
        "settings": request_settings().model_json_schema(),
        "limits": dataclasses.asdict(settings.limits),
        "loras": [_lora(service, entry) for entry in library.loras.entries().values()],
        "embeddings": [_named(entry) for entry in library.embeddings.entries().values()],
        "controls": [_named(entry) for entry in library.controls.entries().values()],
        "preprocessors": list(PREPROCESSORS),
        "control_modes": dict(MODES),
        "control_resizes": dict(RESIZES),
        "upscalers": _upscalers(service),
        "styles": styles,
        "wildcards": service.wildcard_names(),
        "backgrounds": list(BACKGROUNDS),
        "tilings": list(TILINGS),
        "emphases": list(EMPHASES),
        "fills": list(FILLS),
        "formats": list(FORMATS),
        "live": service.settings.content_checker is None,
        "auth": bool(settings.token),
    }


def _upscalers(service: Service) -> list[dict[str, Any]]:
    """Those of hires fix and of POST /v1/upscale: `latent` ones are of hires fix alone, `picture` ones of pictures."""
    own = [
        {"name": name, "latent": name.startswith("Latent"), "picture": name in RESAMPLERS, "scale": None}
        for name in UPSCALERS
    ]
    found = [
        {"name": entry.name, "latent": False, "picture": True, "scale": service.library.upscaler_scale(entry)}
        for entry in sorted(service.library.upscalers.entries().values(), key=lambda entry: entry.name)
    ]
    return [*own, *found]


def _named(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "title": entry.title, "preview": None}


def _lora(service: Service, entry: Entry) -> dict[str, Any]:
    words = service.kept_words(entry) if entry.path is not None else []
    preview = f"/v1/previews/loras/{entry.name}" if entry.preview is not None else None
    return {"name": entry.name, "title": entry.title, "triggers": words, "preview": preview}


def _model(service: Service, entry: Entry) -> dict[str, Any]:
    facts = service.facts.of(entry)
    usual = facts.defaults
    return {
        "name": entry.name,
        "title": entry.title,
        "family": facts.family,
        "label": facts.label,
        "size": [usual.width, usual.height],
        "steps": usual.steps,
        "guidance": usual.guidance,
        "sampler": usual.sampler,
        "schedule": usual.schedule,
        "factor": facts.factor,
        "coarse": facts.coarse,
        "alpha": facts.alpha,
        "built_in": entry.path is None,
        "problem": None if facts.problem is None else service.public(facts.problem),
        "preview": f"/v1/previews/models/{entry.name}" if entry.preview is not None else None,
    }


__all__ = ["router", "trigger_words"]
