"""The application: guard, limits, errors, and the routers of every API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.middleware.gzip import GZipMiddleware

from .. import __version__
from ..jobs.worker import JobRunner
from . import pages
from .a1111 import routes as a1111
from .auth import Tokens
from .bodies import BodyDeadline
from .comfy import routes as comfy
from .errors import Errors, ErrorShape
from .guard import Guard
from .mcp.mount import McpDoor, is_installed, mcp_route
from .observe.log import AccessLog
from .observe.metrics import Measured
from .openai import routes as openai
from .service import Service
from .settings import ServerSettings
from .v1 import capabilities, events, gallery, inputs, jobs, live, system, upscale

ROUTERS: tuple[APIRouter | Callable[[ServerSettings], APIRouter], ...] = (
    system.router,
    jobs.router,
    upscale.router,
    events.router,
    capabilities.router,
    gallery.router,
    inputs.router,
    live.router,
    a1111.router,
    openai.openai_router,
    comfy.comfy_router,
    lambda settings: pages.router(),
)
"""What is mounted, in order: a router, or a function that makes one of the settings."""
SHAPES: tuple[ErrorShape, ...] = (a1111.ERRORS, openai.ERRORS, comfy.ERRORS)
"""How the APIs write errors; ours is the rest."""
FORM_LIMITS = {"max_files": 17, "max_fields": 40}


def create_app(settings: ServerSettings | None = None, runners: Sequence[JobRunner] = ()) -> FastAPI:
    """The application of a server; the queue's folder is taken at once, and its workers run as long as it does.

    runners   one for each job that may run at once; () is one on the settings' device

    StableDiffusionError where the folder or database cannot be used. `app.state.service` is its `Service`.
    """
    settings = ServerSettings() if settings is None else settings
    errors = Errors(settings.roots, SHAPES)
    service = Service(settings, errors, runners)
    app = FastAPI(
        title="Stable Diffusion",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        max_body_size=settings.limits.small_body,
        form_limits=FORM_LIMITS,  # type: ignore[arg-type]  # a TypedDict
    )
    app.state.service, app.state.settings = service, settings
    app.state.tokens = Tokens(settings.token, settings.limits.failures)
    errors.install(app)
    for each in ROUTERS:
        app.include_router(each if isinstance(each, APIRouter) else each(settings))
    for address, files in pages.static_mounts():
        app.mount(address, files)
    app.state.mcp = McpDoor(service) if is_installed() else None
    if app.state.mcp is not None:
        app.router.routes.append(mcp_route(app.state.mcp))
    # The last one added is the first that a request meets.
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=4)
    app.add_middleware(BodyDeadline, seconds=settings.limits.body_seconds)
    app.add_middleware(Measured, metrics=service.metrics)
    app.add_middleware(Guard, settings=settings, tokens=app.state.tokens, errors=errors)
    app.add_middleware(AccessLog)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await service.call(service.start)
    watch = asyncio.create_task(service.watch())
    try:
        yield
    finally:
        service.closing = True
        if app.state.mcp is not None:
            await app.state.mcp.close()
        watch.cancel()
        await service.call(service.close)
