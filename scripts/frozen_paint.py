"""One case of `frozen`: a request, what it makes, and how often the networks ran for it."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import frozen_hooks as hooks
import torch
from frozen_shop import Shop
from torch import Tensor

Entry = dict[str, Any]
Entries = Iterator[tuple[str, Entry]]
BASE = {"seed": 3, "steps": 3, "guidance": 3.0, "width": 48, "height": 32, "negative_prompt": "a dog"}
PROMPT = "a (red:1.3) cat"
HEX = re.compile(r"\b[0-9a-f]{8,64}\b")


@dataclass(frozen=True)
class Case:
    """A request on a model of `Shop`, by name; settings are fields of `Request`, those of groups as mappings."""

    name: str
    model: str = "sd1"
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = PROMPT
    batch: int | None = None
    base: Mapping[str, Any] = field(default_factory=lambda: BASE)


def digest(*parts: object) -> str:
    """Sixteen hex digits of the sha256 of bytes, tensors (their shape, type and numbers), or anything that is JSON."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            tensor = part.detach().cpu().contiguous()
            total.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
            part = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        elif not isinstance(part, bytes):
            part = json.dumps(part, sort_keys=True, ensure_ascii=False, default=str).encode()
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:16]


def made(shop: Shop, case: Case, *, latents: bool = True) -> Entry:
    """The record of a case: pictures before and after rounding, noise levels, text, and counts; final latents too,
    which are made by a second run, where they are asked for."""
    import stable_diffusion as sd

    model, request = shop.model(case.model), request_of(case)
    with hooks.counting() as counts:
        events = list(sd.generate(model, request, output="straight", batch=case.batch))
    done = [event for event in events if isinstance(event, sd.Images)]
    images = [image for event in done for image in event.images]
    steps = [(e.index, e.total, e.picture, e.sigma) for e in events if isinstance(e, sd.Progress)]
    entry: Entry = {
        "floats": digest(*[event.tensor for event in done]),
        "pixels": digest(*[part for image in images for part in (image.mode, image.size, image.tobytes())]),
        "sigmas": digest(steps),
        "steps": len(steps),
        "notes": sum(len(event.notes) for event in done),
        "resolved": digest([hooks.plain(each) for event in done for each in event.requests]),
        "read": digest([hooks.plain(sd.read_metadata(image).request) for image in images]),
        **text_of(shop, [image.info["parameters"] for image in images]),
    }
    if latents:
        again = sd.generate(model, request, output="latent", batch=case.batch)
        entry["latent"] = digest(*[event.tensor for event in again if isinstance(event, sd.Images)])
    return entry | {name: counts[name] for name in hooks.COUNTS if counts[name]}


def request_of(case: Case) -> Any:
    """The request of a case; controls, which are mappings there, are made here."""
    import stable_diffusion as sd

    settings = hooks.renamed({**case.base, **case.settings})
    if "controls" in settings:
        settings["controls"] = [
            sd.Control(**hooks.renamed(control, "controls")) for control in case.settings["controls"]
        ]
    return sd.Request(case.prompt, **settings)


def given(settings: Mapping[str, Any], group: str = "") -> Iterator[str]:
    """The names of fields that are set, those of groups and controls as "group.field"."""
    for name, value in settings.items():
        yield f"{group}.{name}" if group else name
        for each in value if name == "controls" else [value]:
            if isinstance(each, Mapping):
                yield from given(each, name)


def text_of(shop: Shop, texts: list[str]) -> Entry:
    """Hashes of texts: as they are, and with the hashes of files blotted out, which depend on the processor."""
    assert not any(str(shop.place) in text for text in texts), "a path of this machine is in the metadata"
    return {"parameters": digest(texts), "words": digest([HEX.sub("#", text) for text in texts])}


def painted(shop: Shop, cases: Iterator[Case], *, latents: bool = True) -> Entries:
    """The entries of cases. Warnings are no part of them."""
    for case in cases:
        shop.exercised |= set(given({"prompt": case.prompt, **case.base, **case.settings}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield f"{case.model}/{case.name}", made_or_refused(shop, case, latents)


def made_or_refused(shop: Shop, case: Case, latents: bool) -> Entry:
    """The record of a case, or which error says that the model cannot do it."""
    import stable_diffusion as sd

    try:
        return made(shop, case, latents=latents)
    except sd.StableDiffusionError as error:
        return {"refused": type(error).__name__}
