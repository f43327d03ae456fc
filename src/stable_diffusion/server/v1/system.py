"""Health, numbers for monitoring, the page's login and its settings, and how long a prompt is."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from ..auth import COOKIE, Tokens, check_session
from ..errors import ApiError
from ..limits import CAPACITY, cut_at, tokens, windows
from ..schema import Strict
from ..service import ServiceIs

router = APIRouter(tags=["system"])
MOST_PAGE = 64 * 1024
"""Bytes of the page's settings."""
SESSION_SECONDS = 30 * 86400


class Login(Strict):
    token: Annotated[str, Field(max_length=1000)]


class Prompts(Strict):
    """A prompt and a negative one; `model` is for models whose tokens differ."""

    prompt: Annotated[str, Field(max_length=32_000)] = ""
    negative_prompt: Annotated[str, Field(max_length=32_000)] | None = None
    model: Annotated[str, Field(max_length=300)] | None = None


@router.get("/healthz", summary="Whether the server runs")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="Whether it can take jobs")
async def readyz(service: ServiceIs) -> JSONResponse:
    """503 with a reason where the disk is full, the worker has ended, or the database does not answer."""
    try:
        state = await service.call(service.queue.state)
    except Exception:
        return JSONResponse({"status": "unavailable", "reason": "the database does not answer"}, 503)
    reason = state.reason if state.paused else None
    if state.workers == 0:
        reason = "no worker runs"
    if reason is not None:
        return JSONResponse({"status": "unavailable", "reason": service.public(reason)}, 503)
    return JSONResponse({"status": "ok", "paused": state.paused, "queued": state.queued})


@router.get("/metrics", response_class=Response, summary="Numbers for Prometheus")
async def metrics(service: ServiceIs) -> Response:
    return Response(await service.call(service.metrics.text), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.post("/v1/session", status_code=204, summary="Log the page in")
async def login(http: Request, given: Login) -> Response:
    """Sets a cookie for the page; programs give the token as Bearer instead."""
    await check_session(http, given.token)
    tokens: Tokens = http.app.state.tokens
    answer = Response(status_code=204)
    if tokens.required:
        secure = http.url.scheme == "https"
        options: dict[str, Any] = {"httponly": True, "samesite": "strict", "secure": secure, "path": "/"}
        answer.set_cookie(COOKIE, tokens.session, max_age=SESSION_SECONDS, **options)
    return answer


@router.get("/v1/session", summary="Whether a token is needed, and given")
async def session(http: Request) -> dict[str, bool]:
    tokens: Tokens = http.app.state.tokens
    return {"required": tokens.required, "ok": tokens.passes(http)}


@router.delete("/v1/session", status_code=204, summary="Log the page out")
async def logout() -> Response:
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


@router.get("/v1/settings/page", summary="What the page keeps")
async def page_settings(service: ServiceIs) -> dict[str, Any]:
    found = await service.call(service.queue.settings.get, "page", {})
    return found if isinstance(found, dict) else {}


@router.put("/v1/settings/page", summary="Keep something for the page")
async def keep_page_settings(service: ServiceIs, settings: dict[str, Any]) -> dict[str, Any]:
    """Any JSON object of at most 64 KB; it is shown to every browser that may use the server."""
    try:
        size = len(json.dumps(settings, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError):
        raise ApiError(422, "the settings hold a number or a sign that JSON has not") from None
    if size > MOST_PAGE:
        raise ApiError(413, f"the settings have {size} bytes; expected at most {MOST_PAGE}")
    await service.call(service.queue.settings.set, "page", settings)
    return settings


@router.post("/v1/tokens", summary="How long prompts are")
async def count_tokens(service: ServiceIs, prompts: Prompts) -> dict[str, Any]:
    """Tokens and windows of each prompt, and what is beyond this server's limit: `cut` is that text."""
    found = {}
    for name in ("prompt", "negative_prompt"):
        text = getattr(prompts, name)
        if text is not None:
            found[name] = await service.call(_counted, text, service)
    return found


def _counted(text: str, service: ServiceIs) -> dict[str, Any]:
    limits = service.settings.limits
    place = cut_at(text, limits)
    return {
        "tokens": tokens(text),
        "windows": windows(text),
        "per_window": CAPACITY,
        "limit": limits.windows * CAPACITY,
        "characters": len(text),
        "most_characters": limits.prompt,
        "kept": text if place is None else text[:place],
        "cut": "" if place is None else text[place:],
        "cut_at": place,
    }
