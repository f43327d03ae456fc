"""Graphs that are over, as ComfyUI lists them: outputs by node, and how each ended."""

from __future__ import annotations

from typing import Any

from ...jobs import Job, Picture
from .state import Comfy, Prompted, file_names


async def history_of(comfy: Comfy, prompt_id: str | None = None, most: int | None = None) -> dict[str, Any]:
    """All that are over, or one of them: nothing where it is not, or is not known."""
    found = {}
    wanted = list(comfy.prompts.values()) if prompt_id is None else [comfy.prompts.get(prompt_id)]
    for each in wanted:
        if each is not None and not each.hidden and await whole_entry(comfy, each) is not None:
            found[each.id] = each.whole
    if most is not None and most >= 0:
        found = dict(list(found.items())[-most:] if most else [])
    return found


async def whole_entry(comfy: Comfy, prompted: Prompted) -> dict[str, Any] | None:
    """The entry of a graph that is over; made once."""
    if prompted.whole is None:
        job = await comfy.job(prompted)
        if job is None or not job.is_finished:
            return None
        pictures = await comfy.service.call(comfy.service.queue.pictures_of, job.id)
        prompted.whole = _entry(comfy, prompted, job, pictures)
    return prompted.whole


def _entry(comfy: Comfy, prompted: Prompted, job: Job, pictures: list[Picture]) -> dict[str, Any]:
    images = file_names(pictures)
    outputs = {node: {"images": images} for node in prompted.plan.saves} if images else {}
    return {
        "prompt": prompted.ticket,
        "outputs": outputs,
        "status": {
            "status_str": "success" if job.state == "done" else "error",
            "completed": job.state == "done",
            "messages": _messages(comfy, prompted, job),
        },
        "meta": {node: _meta(node) for node in outputs},
    }


def _meta(node: str) -> dict[str, Any]:
    return {"node_id": node, "display_node": node, "parent_node": None, "real_node_id": node}


def _messages(comfy: Comfy, prompted: Prompted, job: Job) -> list[list[Any]]:
    start = {"prompt_id": prompted.id, "timestamp": milliseconds(job.started or job.created)}
    found: list[list[Any]] = [["execution_start", start], ["execution_cached", {"nodes": [], **start}]]
    end = end_message(comfy, prompted, job)
    return [*found, [end["type"], end["data"]]]


def end_message(comfy: Comfy, prompted: Prompted, job: Job) -> dict[str, Any]:
    """How a graph ended, as the socket and the history say it."""
    data: dict[str, Any] = {"prompt_id": prompted.id, "timestamp": milliseconds(job.finished or job.created)}
    notes = [*prompted.plan.notes, *map(comfy.service.public, job.notes)]
    if job.state == "done":
        return {"type": "execution_success", "data": {**data, "notes": notes} if notes else data}
    node = prompted.plan.sampler
    data |= {"node_id": node, "node_type": prompted.graph[node]["class_type"], "executed": []}
    if job.state == "cancelled":
        return {"type": "execution_interrupted", "data": data}
    sentence = comfy.service.public(job.error or f"the job is {job.state}")
    data |= {"exception_message": sentence, "exception_type": "GenerationError", "traceback": []}
    return {"type": "execution_error", "data": {**data, "current_inputs": {}, "current_outputs": []}}


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
