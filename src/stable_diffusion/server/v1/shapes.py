"""Jobs, pictures and events as JSON; no path of this machine is in it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...jobs import Job, JobEvent, Picture, QueueState
from ..content import is_flagged
from ..library import Library, Listing
from ..service import Service

FOLDERS = ("lora_dir", "embeddings_dir")
PROMPTING_FILES = ("styles_file", "wildcards_dir")


def picture_json(picture: Picture) -> dict[str, Any]:
    """A picture of the gallery."""
    address = f"/v1/gallery/{picture.id}"
    return {
        "id": picture.id,
        "job": picture.job,
        "number": picture.number,
        "url": f"{address}/file",
        "thumbnail": f"{address}/thumbnail",
        "seed": picture.seed,
        "seed_text": None if picture.seed is None else str(picture.seed),
        "width": picture.width,
        "height": picture.height,
        "format": picture.format,
        "bytes": picture.bytes,
        "prompt": picture.prompt,
        "starred": picture.starred,
        "flagged": is_flagged(picture),
        "deleted": picture.deleted,
        "created": picture.created,
        "seconds": picture.seconds,
        "available": picture.available,
    }


def job_json(
    service: Service,
    job: Job,
    pictures: Sequence[Picture] = (),
    progress: Mapping[str, Any] | None = None,
    position: int | None = None,
) -> dict[str, Any]:
    """A job as it is now."""
    seed = job.body.get("seed")
    return {
        "id": job.id,
        "seq": job.seq,
        "state": job.state,
        "position": position,
        "url": f"/v1/jobs/{job.id}",
        "kind": job.kind,
        "priority": job.priority,
        "count": job.count,
        "created": job.created,
        "started": job.started,
        "finished": job.finished,
        "attempts": job.attempts,
        "cancelling": job.cancel and not job.is_finished,
        "error": None if job.error is None else service.public(job.error),
        "notes": [service.public(note) for note in job.notes],
        "progress": None if progress is None else dict(progress),
        "seed_text": None if seed is None else str(seed),
        "request": settings_of(service.library, job.body),
        "flagged": any(map(is_flagged, pictures)),
        "pictures": [picture_json(each) for each in pictures],
    }


def queue_json(state: QueueState, service: Service) -> dict[str, Any]:
    """How the queue is doing."""
    return {
        "paused": state.paused,
        "reason": None if state.reason is None else service.public(state.reason),
        "queued": state.queued,
        "running": list(state.running),
        "seconds_left": state.seconds_left,
    }


def event_json(service: Service, event: JobEvent) -> dict[str, Any]:
    """What an event says; `job` is empty where it is about no job."""
    data = dict(event.data)
    for name in ("error", "reason"):
        if isinstance(data.get(name), str):
            data[name] = service.public(data[name])
    if isinstance(data.get("notes"), (list, tuple)):
        data["notes"] = [service.public(str(each)) for each in data["notes"]]
    if event.kind == "picture":
        address = f"/v1/gallery/{data['id']}"
        data |= {"url": f"{address}/file", "thumbnail": f"{address}/thumbnail", "seed_text": str(data.get("seed"))}
    if event.preview is not None:
        kind = "jpeg" if event.preview[:2] == b"\xff\xd8" else "webp"
        data["image"] = f"data:image/{kind};base64,{base64.b64encode(event.preview).decode('ascii')}"
    return {**data, "job": event.job, "at": event.at}


def settings_of(library: Library, body: Mapping[str, Any]) -> dict[str, Any]:
    """A request as the queue holds it, as clients write it: names in the place of paths, and none of the folders."""
    found = {name: value for name, value in body.items() if name not in FOLDERS}
    if found.get("model") is not None:
        found["model"] = _name(library.models, found["model"])
    refiner = found.get("refiner")
    if isinstance(refiner, Mapping) and refiner.get("model") is not None:
        found["refiner"] = {**refiner, "model": _name(library.models, refiner["model"])}
    hires = found.get("hires")
    if isinstance(hires, Mapping) and hires.get("upscaler") is not None:
        found["hires"] = {**hires, "upscaler": _name(library.upscalers, hires["upscaler"])}
    if found.get("loras"):
        found["loras"] = [_lora(library, each) for each in found["loras"]]
    if found.get("controls"):
        found["controls"] = [_control(library, each) for each in found["controls"]]
    if isinstance(found.get("prompting"), Mapping):
        kept = {name: value for name, value in found["prompting"].items() if name not in PROMPTING_FILES}
        found["prompting"] = kept
        if not kept:
            del found["prompting"]
    return found


def _name(listing: Listing, path: str) -> str:
    if "/" not in path and "\\" not in path:
        return path
    return listing.of_path(path) or Path(path).stem


def _lora(library: Library, value: Any) -> dict[str, Any]:
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    path, strength, text = [*listed, None, None][:3]
    found = {"name": _name(library.loras, str(path)), "strength": 1.0 if strength is None else strength}
    return found if text is None else {**found, "text_strength": text}


def _control(library: Library, value: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: each for name, each in value.items() if name not in ("path", "image_encoder")}
    return {"name": _name(library.controls, str(value.get("path", ""))), **found}
