"""What a browser opens: the page, its files, and the list of addresses. Everything comes from this server alone."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ..ui import static_folder
from .errors import ApiError

OWN = Path(__file__).resolve().parent / "static"
CACHE = {"Cache-Control": "no-cache"}
"""Kept by the browser and asked for again with its ETag, so that a new version shows at once."""
NO_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Stable Diffusion</title><h1>Stable Diffusion</h1>"
    "<p>The server runs. <a href=/docs>Its addresses</a> are listed here; the page is not installed."
)


def page_folder() -> Path | None:
    """The folder of the page; None where it is not installed."""
    folder = static_folder()
    return folder if (folder / "index.html").is_file() else None


class PageFiles(StaticFiles):
    """Static files that a browser checks again each time, and that are never followed out of their folder."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers.update(CACHE)
        return answer


def index_page() -> Response:
    """The page itself."""
    folder = page_folder()
    if folder is None:
        return HTMLResponse(NO_PAGE)
    return FileResponse(folder / "index.html", media_type="text/html", headers=CACHE)


def router() -> APIRouter:
    """The page and what lies at fixed addresses."""
    routes = APIRouter(tags=["page"], include_in_schema=False)
    folder = page_folder()

    for path in ("/", "/live", "/view"):
        routes.add_api_route(path, index_page, methods=["GET", "HEAD"])

    @routes.get("/docs")
    def docs() -> FileResponse:
        return FileResponse(OWN / "docs.html", media_type="text/html", headers=CACHE)

    def fixed(name: str, media: str, more: MutableMapping[str, str]) -> Any:
        def answer() -> Response:
            if folder is None or not (folder / name).is_file():
                raise ApiError(404, "the page is not installed")
            return FileResponse(folder / name, media_type=media, headers={**CACHE, **more})

        return answer

    worker = {"Service-Worker-Allowed": "/"}
    routes.add_api_route("/sw.js", fixed("sw.js", "text/javascript", worker), methods=["GET"])
    manifest = fixed("manifest.webmanifest", "application/manifest+json", {})
    routes.add_api_route("/manifest.webmanifest", manifest, methods=["GET"])

    @routes.get("/favicon.ico")
    def favicon() -> Response:
        path = None if folder is None else folder / "icons" / "icon-192.png"
        if path is None or not path.is_file():
            return Response(status_code=204)
        return FileResponse(path, media_type="image/png", headers=CACHE)

    return routes


def static_mounts() -> list[tuple[str, StaticFiles]]:
    """(address, files) of the folders that are served as they are."""
    found: list[tuple[str, StaticFiles]] = [("/static/docs", PageFiles(directory=OWN))]
    folder = page_folder()
    if folder is not None:
        found.append(("/static", PageFiles(directory=folder)))
    return found
