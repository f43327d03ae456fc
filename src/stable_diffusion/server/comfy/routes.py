"""The routes of ComfyUI that its clients use. `/system_stats` is under /comfy alone.

Some programs take a server for ComfyUI, and for nothing else, where that address answers; so clients that ask for it
(SillyTavern) are given http://HOST:PORT/comfy as the server's address.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from ... import __version__
from ...errors import InvalidRequest
from ..auth import OwnerIs
from ..errors import ApiError
from ..openai.asking import check_sides, check_tags
from ..openai.reading import json_object
from ..pages import index_page
from ..service import Service, ServiceIs
from ..settings import ServerSettings
from .faults import ERRORS, GraphFault, node_fault
from .files import opened_source, shown, uploaded
from .graph import checked_graph
from .history import history_of
from .nodes import EMPTY, KINDS, OWN_VAE, lists_of, node_info
from .planning import Plan, Planner
from .socket import ComfySocket
from .state import Comfy, ComfyIs, Prompted, get_comfy

__all__ = ["ERRORS", "comfy_router"]
PREFIXES = ("", "/api", "/comfy", "/comfy/api")
FOLDERS = {
    "checkpoints": "models",
    "loras": "loras",
    "embeddings": "embeddings",
    "controlnet": "controls",
    "upscale_models": "upscalers",
}
"""ComfyUI's folders of models -> our lists."""
PromptId = Annotated[str, Path(max_length=100)]
Name = Annotated[str, Query(max_length=300)]


def comfy_router(settings: ServerSettings) -> APIRouter:
    """The routes, at every place where clients look for them."""
    routes = APIRouter(tags=["ComfyUI"])
    for prefix in PREFIXES:
        one = APIRouter(prefix=prefix, include_in_schema=not prefix)
        _add_prompt_routes(one)
        _add_queue_routes(one)
        _add_list_routes(one)
        _add_picture_routes(one, settings.limits.body)
        if prefix.startswith("/comfy"):
            one.add_api_route("/system_stats", system_stats, methods=["GET"])
        one.add_api_websocket_route("/ws", socket)
        routes.include_router(one)
    return routes


async def socket(websocket: WebSocket) -> None:
    """How the graphs of `clientId` go on."""
    service: Service = websocket.app.state.service
    comfy = get_comfy(websocket, service)
    if service.streams >= service.settings.limits.streams:
        await websocket.close(1013)
        return
    service.streams += 1
    await websocket.accept()
    one = ComfySocket(comfy, websocket, (websocket.query_params.get("clientId") or uuid.uuid4().hex)[:100])
    sending, listening = asyncio.create_task(one.run()), asyncio.create_task(one.listen())
    try:
        await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        listening.cancel()
        await asyncio.gather(sending, listening, return_exceptions=True)
        service.streams -= 1


async def system_stats(service: ServiceIs) -> dict[str, Any]:
    """What SillyTavern asks to see whether the server is there."""
    system = {"os": "", "comfyui_version": "", "python_version": "", "stable_diffusion_version": __version__}
    return {"system": system, "devices": [{"name": str(service.settings.device), "type": "", "index": 0}]}


def _add_prompt_routes(routes: APIRouter) -> None:
    @routes.post("/prompt", response_model=None)
    async def prompt(comfy: ComfyIs, http: Request, owner: OwnerIs) -> Response:
        """Put a graph into the queue."""
        body = json_object(await http.body())
        try:
            found = await _submitted(comfy, body, owner)
        except GraphFault as fault:
            answer = fault.body()
            return JSONResponse(_public(comfy.service, answer), 400)
        return JSONResponse({"prompt_id": found.id, "number": found.number, "node_errors": {}})

    @routes.get("/prompt")
    async def left(service: ServiceIs) -> dict[str, Any]:
        """How many graphs are not over."""
        state = await service.call(service.queue.state)
        return {"exec_info": {"queue_remaining": state.queued + len(state.running)}}

    @routes.get("/history")
    async def history(
        comfy: ComfyIs, max_items: Annotated[int | None, Query(ge=-1, le=10**6)] = None
    ) -> dict[str, Any]:
        """Graphs that are over, with their pictures."""
        return await history_of(comfy, most=max_items)

    @routes.get("/history/{prompt_id}")
    async def history_of_one(comfy: ComfyIs, prompt_id: PromptId) -> dict[str, Any]:
        """One of them; an empty object as long as it is not over."""
        return await history_of(comfy, prompt_id)

    @routes.post("/history")
    async def forget(comfy: ComfyIs, http: Request) -> dict[str, Any]:
        """Leave graphs out of the history: all that are over (`clear`), or those of `delete`. Their pictures stay."""
        body = await _optional(http)
        ids = set(comfy.prompts) if body.get("clear") is True else set(_ids(body, "delete"))
        for each in ids & set(comfy.prompts):
            if await history_of(comfy, each):
                comfy.prompts[each].hidden = True
        return {}


def _add_queue_routes(routes: APIRouter) -> None:
    @routes.get("/queue")
    async def queue(comfy: ComfyIs) -> dict[str, Any]:
        """Graphs that run or wait."""
        found = await comfy.unfinished()
        states = {"queue_running": "running", "queue_pending": "queued"}
        return {name: [each.ticket for each, job in found if job.state == state] for name, state in states.items()}

    @routes.post("/queue")
    async def dequeue(comfy: ComfyIs, http: Request, owner: OwnerIs) -> dict[str, Any]:
        """Take waiting graphs out: all of this client (`clear`), or those of `delete`."""
        body = await _optional(http)
        ids = set(_ids(body, "delete"))
        for each, job in await comfy.unfinished():
            if job.state == "queued" and job.owner == owner and (body.get("clear") is True or each.id in ids):
                await comfy.service.cancel_quietly(job.id)
        return {}

    @routes.post("/interrupt")
    async def interrupt(comfy: ComfyIs, http: Request, owner: OwnerIs) -> dict[str, Any]:
        """End what runs of this client, or the graph of `prompt_id`, at its next step."""
        prompt_id = (await _optional(http)).get("prompt_id")
        if prompt_id is None:
            await comfy.service.call(comfy.service.queue.cancel_running, owner)
        for each, job in await comfy.unfinished() if isinstance(prompt_id, str) else []:
            if each.id == prompt_id and job.state == "running":
                await comfy.service.cancel_quietly(job.id)
        return {}

    @routes.post("/free")
    async def free(service: ServiceIs) -> dict[str, Any]:
        """Give back the memory of loaded models; the next job loads its own."""
        await service.call(service.release)
        return {}


def _add_list_routes(routes: APIRouter) -> None:
    @routes.get("/object_info")
    async def object_info(comfy: ComfyIs) -> dict[str, Any]:
        """Every node that a graph may have, with its lists."""
        lists = await comfy.service.call(lists_of, comfy.service.library, tuple(comfy.uploads))
        return {kind.name: node_info(kind, lists) for kind in (*KINDS.values(), EMPTY)}

    @routes.get("/object_info/{name}")
    async def one_object_info(comfy: ComfyIs, name: PromptId) -> dict[str, Any]:
        """One of them; an empty object for others."""
        return {each: info for each, info in (await object_info(comfy)).items() if each == name}

    @routes.get("/embeddings")
    async def embeddings(service: ServiceIs) -> list[str]:
        return await service.call(lambda: list(service.library.embeddings.entries()))

    @routes.get("/models")
    async def folders() -> list[str]:
        """Kinds of files that there are lists of."""
        return [*FOLDERS, "vae"]

    @routes.get("/models/{folder}")
    async def files(service: ServiceIs, folder: PromptId) -> list[str]:
        if folder == "vae":
            return [OWN_VAE]
        if folder not in FOLDERS:
            raise ApiError(404, f"there is no folder {folder[:80]!r}; there are {', '.join(FOLDERS)}")
        listing = getattr(service.library, FOLDERS[folder])
        return await service.call(lambda: [entry.title for entry in listing.entries().values()])

    @routes.get("/features")
    async def features(service: ServiceIs) -> dict[str, Any]:
        return {"supports_preview_metadata": False, "max_upload_size": service.settings.limits.body}

    @routes.get("/extensions")
    async def extensions() -> list[str]:
        """None: nothing is loaded into the server."""
        return []


def _add_picture_routes(routes: APIRouter, most: int) -> None:
    async def image(comfy: ComfyIs, http: Request) -> dict[str, str]:
        """Upload a picture for LoadImage."""
        return await uploaded(comfy, http, mask=False)

    async def mask(comfy: ComfyIs, http: Request) -> dict[str, str]:
        """Upload a mask, which becomes the transparency of a picture that was uploaded before."""
        return await uploaded(comfy, http, mask=True)

    routes.add_api_route("/upload/image", image, methods=["POST"], max_body_size=most)
    routes.add_api_route("/upload/mask", mask, methods=["POST"], max_body_size=most)
    routes.add_api_route("/view", view, methods=["GET"], response_model=None)


async def view(comfy: ComfyIs, filename: Name | None = None, channel: Name = "rgba", preview: Name = "") -> Response:
    """A picture by its name. Without one the address is the page's."""
    if filename is None:
        return index_page()
    return await shown(comfy, filename, channel, preview)


async def _submitted(comfy: Comfy, body: dict[str, Any], owner: str) -> Prompted:
    """A graph in the queue; GraphFault where it cannot be run."""
    service, graph = comfy.service, body.get("prompt")
    plan = await service.call(_plan, comfy, graph)
    settings = dict(plan.settings)
    assert isinstance(graph, dict)
    try:
        if plan.image is not None:
            found = await service.call(opened_source, comfy, plan.image, plan.masked)
            if found is None:
                raise InvalidRequest(f"there is no picture {plan.image[:80]!r}; upload it first")
            settings |= found
        await service.call(_check_before, service, settings)
        request = await service.request(settings)
    except InvalidRequest as error:
        kind = graph[plan.sampler]["class_type"]
        raise node_fault(plan.sampler, kind, "custom_validation_failed", service.public(str(error))) from None
    given = body.get("prompt_id")
    prompt_id = given if isinstance(given, str) and 0 < len(given) <= 100 else str(uuid.uuid4())
    extra = body.get("extra_data")
    client = body.get("client_id")
    async with comfy.submitting:
        job = await service.submit(request, owner, priority=1 if body.get("front") is True else 0)
        comfy.number += 1
        prompted = Prompted(
            prompt_id,
            comfy.number,
            graph,
            extra if isinstance(extra, dict) else {},
            plan,
            client if isinstance(client, str) else "",
            job.id,
        )
        comfy.add(prompted)
    return prompted


def _plan(comfy: Comfy, graph: object) -> Plan:
    lists = lists_of(comfy.service.library, tuple(comfy.uploads))
    nodes = checked_graph(graph, comfy.service.library, lists)
    return Planner(nodes, comfy.service.settings.limits.steps).plan()


def _check_before(service: Service, settings: dict[str, Any]) -> None:
    """InvalidRequest for what a job would find only when it runs."""
    check_tags(settings["prompt"], service.library)
    if "width" in settings:
        factor = service.facts.of(service.library.models.find(settings["model"])).factor
        check_sides((settings["width"], settings["height"]), factor, service.settings.limits.side)


def _public(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    """A fault without folders of this machine."""
    body["error"]["message"] = service.public(body["error"]["message"])
    return body


async def _optional(http: Request) -> dict[str, Any]:
    """The JSON object of a body, or an empty one where there is no body."""
    data = await http.body()
    return json_object(data) if data.strip() else {}


def _ids(body: dict[str, Any], name: str) -> list[str]:
    found = body.get(name)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
