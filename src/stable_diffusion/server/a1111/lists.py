"""What may be chosen, in the lists that clients of A1111 ask for. No path of this machine is in them: names alone."""

from __future__ import annotations

import os
from typing import Any

from ...request.names import AUTOMATIC, SAMPLERS, SCHEDULES, SamplerName
from ..library import Entry, Library
from .upscaler_names import LATENT, NONE, upscaler_names

SCALE = 4
"""By how much A1111 says that an upscaler enlarges where it does not know."""


def samplers_json() -> list[dict[str, Any]]:
    """Samplers by A1111's labels, with those of their variants that A1111 lists as samplers."""
    found = []
    for sampler in SAMPLERS.values():
        found.append(_sampler(sampler.label, sampler, [sampler.id, *sampler.aliases]))
        shown = [name for name in sampler.presets if " " in name]
        found += [_sampler(name, sampler, []) for name in shown]
    return found


def _sampler(label: str, sampler: SamplerName, aliases: list[str]) -> dict[str, Any]:
    short = sampler.id.replace("_ancestral", "_a")
    names = [*aliases, f"k_{short}"] if aliases else []
    return {"name": label, "aliases": list(dict.fromkeys(names)), "options": {"scheduler": sampler.schedule}}


def schedulers_json() -> list[dict[str, Any]]:
    """Schedules, the automatic one first."""
    named = [(AUTOMATIC, "Automatic", ()), *((each.id, each.label, each.aliases) for each in SCHEDULES.values())]
    return [
        {
            "name": name,
            "label": label,
            "aliases": list(aliases) or None,
            "default_rho": 7.0 if name == "karras" else -1,
            "need_inner_model": False,
        }
        for name, label, aliases in named
    ]


def upscalers_json(library: Library) -> list[dict[str, Any]]:
    """Upscalers of pictures; the first is that of none at all, behind which SillyTavern puts those of the latent."""
    return [
        {"name": name, "model_name": None if name == NONE else name, "model_path": None, "model_url": None,
         "scale": _scale(name, library)}
        for name in upscaler_names(library)
    ]  # fmt: skip


def _scale(name: str, library: Library) -> int:
    entry = library.upscalers.entries().get(name)
    return (None if entry is None else library.upscaler_scale(entry)) or SCALE


def latent_modes_json() -> list[dict[str, str]]:
    """Upscalers of the latent."""
    return [{"name": name} for name in LATENT]


def checkpoints_json(library: Library) -> list[dict[str, Any]]:
    """Models. They are not hashed for a list: `hash` is null, as A1111 has it before it loads one."""
    return [
        {
            "title": entry.title,
            "model_name": entry.name,
            "hash": None,
            "sha256": None,
            "filename": entry.title,
            "config": None,
        }
        for entry in library.models.entries().values()
    ]


def loras_json(library: Library) -> list[dict[str, Any]]:
    """LoRAs."""
    return [
        {"name": entry.name, "alias": entry.name, "path": entry.title, "metadata": {}}
        for entry in library.loras.entries().values()
    ]


def styles_json(library: Library) -> list[dict[str, Any]]:
    """Styles of the server's file."""
    return [
        {"name": name, "prompt": style.prompt, "negative_prompt": style.negative_prompt}
        for name, style in library.styles().items()
    ]


def embeddings_json(library: Library) -> dict[str, Any]:
    """Embeddings; that they fit the model, and how many vectors they have, is seen when a prompt uses them."""
    entries: list[Entry] = list(library.embeddings.entries().values())
    facts = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": None, "vectors": None}
    return {"loaded": {entry.name: dict(facts) for entry in entries}, "skipped": {}}


def memory_json() -> dict[str, Any]:
    """Bytes of this machine and of its graphics card."""
    return {"ram": _ram(), "cuda": _cuda()}


def _ram() -> dict[str, Any]:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return {"error": "this system does not say how much memory it has"}
    return {"free": free, "used": total - free, "total": total}


def _cuda() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {"error": "there is no CUDA device"}
    free, total = torch.cuda.mem_get_info()
    now, most = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    counts = torch.cuda.memory_stats()
    return {
        "system": {"free": free, "used": total - free, "total": total},
        "active": {"current": now, "peak": most},
        "allocated": {"current": now, "peak": most},
        "reserved": {"current": torch.cuda.memory_reserved(), "peak": torch.cuda.max_memory_reserved()},
        "inactive": {"current": 0, "peak": 0},
        "events": {"retries": counts.get("num_alloc_retries", 0), "oom": counts.get("num_ooms", 0)},
    }
