"""`evaluate(model, ...)`: the sections one after another, and what each needs."""

from __future__ import annotations

import dataclasses
import platform
import time
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..errors import InvalidRequest
from ..pipeline.models import StableDiffusion
from .bench import FULL, QUICK, Bench, Plan
from .clip_eye import ClipEye
from .pack import PicturePack
from .painter import Painter, silent
from .painter import Report as Progress
from .report import Report
from .sections import alignment, diversity, efficiency, quality, stability
from .tower import Eye

SECTIONS = ("quality", "alignment", "diversity", "stability", "efficiency")
PLANS = {"quick": QUICK, "full": FULL}


def evaluate(
    model: StableDiffusion,
    *,
    pack: PicturePack | None = None,
    eye: Eye | None = None,
    clip: ClipEye | None = None,
    plan: Plan = QUICK,
    sections: tuple[str, ...] = SECTIONS,
    report: Progress = silent,
) -> Report:
    """Measure a model. Without pack or eye the report holds what needs neither, and says what was left out and why;
    `clip` adds two distances to the quality.

    The same model, pack, eye and plan give the same numbers, but for those that are times.
    """
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise InvalidRequest(f"there is no section {unknown[0]!r} of the report: choose from {', '.join(SECTIONS)}")
    start = time.perf_counter()
    bench = Bench(painter=Painter(model=model, report=report), plan=plan, pack=pack, eye=eye, clip=clip)
    found: dict[str, Any] = {}
    restarted = stability.restart(bench) if {"stability", "efficiency"} & set(sections) else None
    if "efficiency" in sections:  # first: the machine is cool, and nothing else is in memory
        found["efficiency"] = efficiency.measure(bench, restarted)
    for name, measure in (
        ("quality", quality.measure),
        ("alignment", alignment.measure),
        ("diversity", diversity.measure),
    ):
        if name in sections:
            found[name] = measure(bench)
    if "stability" in sections:
        found["stability"] = stability.measure(bench, restarted)
    for name in SECTIONS:
        if name not in sections:
            bench.skip(name, "it was not asked for")
    return Report(
        model=about_model(model),
        settings=_settings(bench),
        machine=about_machine(model),
        seconds=time.perf_counter() - start,
        left_out=tuple(bench.left_out),
        orders=tuple(bench.painter.orders),
        shown=tuple(bench.shown),
        **found,
    )


def about_model(model: StableDiffusion) -> dict[str, Any]:
    parts = model.parts
    networks = {item.name: getattr(parts, item.name) for item in dataclasses.fields(parts)}
    counts = {
        name: sum(parameter.numel() for parameter in network.parameters())
        for name, network in networks.items()
        if isinstance(network, nn.Module)
    }
    return {
        "name": model.name,
        "hash": model.hash,
        "family": parts.family,
        "version": parts.card.version,
        "parameters": {**counts, "together": sum(counts.values())},
        "defaults": dataclasses.asdict(model.defaults),
    }


def about_machine(model: StableDiffusion) -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stable_diffusion": __version__,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def _settings(bench: Bench) -> dict[str, Any]:
    pack, eye, clip = bench.pack, bench.eye, bench.clip
    return {
        "plan": dataclasses.asdict(bench.plan),
        "pack": None if pack is None else {"name": pack.name, "records": len(pack.records)},
        "tower": None if eye is None else {"name": eye.name, "hash": eye.hash, "size": eye.size},
        "clip": None if clip is None else {"name": clip.name, "size": clip.network.config.image_size},
        "note": "a picture of this list is painted again with the model's own settings but for those named",
    }
