"""What the values of a text mean in the program that wrote it: its noise, its schedules, and its samplers' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import InvalidRequest
from ..names import AUTOMATIC, SAMPLERS, canonical_sampler, fold

OURS = "stable-diffusion"
"""How the version of a text of ours begins; another word may follow behind a space alone."""
COMFY, INVOKE, NOVEL, FOOOCUS, CPP = "ComfyUI", "InvokeAI", "NovelAI", "Fooocus", "stable-diffusion.cpp"
SDNEXT, SWARM, EASY, DRAW = "SD.Next", "SwarmUI", "Easy Diffusion", "Draw Things"
MATRIX = "StabilityMatrix"


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program as a writer of texts.

    rng        its noise source where a text names none: "CPU", "GPU", "NV", or "" for one that cannot be had here
    usual      the schedule that a text without one means; None the sampler's own of this package, and
               `names.AUTOMATIC` A1111's of today
    emphasis   how it reads weights in prompts, where that is not A1111's way
    idle       keys that it writes although they did nothing
    before     its texts are older than the names of schedules: see `schedule_before_names`
    ours       whether it is this one
    """

    rng: str = "GPU"
    usual: str | None = AUTOMATIC
    emphasis: str | None = None
    idle: tuple[str, ...] = ()
    before: bool = False
    ours: bool = False


EXACTLY = {"ddim_trailing": "ddim sgm uniform"}
"""Other programs' names that nothing here is called by, and that mean the same."""

PROGRAMS: dict[str, Program] = {
    CPP: Program(rng="NV", usual="normal", idle=("Eta", "Guidance")),
    COMFY: Program(rng="CPU", usual="normal", emphasis="ComfyUI"),
    MATRIX: Program(rng="CPU", usual="normal", emphasis="ComfyUI"),
    SWARM: Program(rng="CPU", usual="normal", emphasis="ComfyUI"),
    FOOOCUS: Program(rng="CPU", usual="karras"),
    INVOKE: Program(rng="CPU", usual="normal", emphasis="ComfyUI"),
    NOVEL: Program(rng="", usual="normal"),
    EASY: Program(rng="GPU", usual="normal"),
    DRAW: Program(rng="", usual="normal"),
    SDNEXT: Program(rng="GPU", usual=AUTOMATIC),
}
"""How its version begins -> the program; those that are not here write as A1111 does."""
_A1111 = re.compile(r"v(\d+)\.(\d+)")
_SCHEDULE_NAMED = (1, 9)
"""The version of A1111 since which texts name the schedule, and a sampler's name alone means its usual one."""


def program_of(values: Mapping[str, str]) -> Program:
    """The program that wrote these values."""
    version = values.get("Version", "")
    if version == OURS or version.startswith(OURS + " "):
        return Program(rng="CPU", usual=None, ours=True)
    name = f"{values.get('App', '')} {version}".casefold()
    for start, program in PROGRAMS.items():
        if start.casefold() in name or (start == SDNEXT and "sdnext" in name):
            return program
    return Program(before=_before_schedules(version))


def _before_schedules(version: str) -> bool:
    """Whether it is A1111 before schedules had a name of their own (Forge's versions hold A1111's)."""
    found = _A1111.findall(version)
    return not found or tuple(map(int, found[-1])) < _SCHEDULE_NAMED


def schedule_before_names(sampler: str) -> str:
    """What a sampler's name alone meant in A1111 before 1.9: even steps, also where its usual schedule is now Karras'
    or the exponential one, which its name then said. "Restart" always had Karras'."""
    moved = SAMPLERS[sampler].schedule in ("karras", "exponential") and sampler != "restart"
    return "normal" if moved else AUTOMATIC


SIMILAR = {
    "heunpp2": "heun",
    "dpmpp2mv2": "dpmpp_2m",
    "eulerasmea": "euler_ancestral",
    "eulersmea": "euler",
    "eulersmeady": "euler",
    "eulerdy": "euler",
    "euleraturbo": "euler_ancestral",
    "dpmpp2mturbo": "dpmpp_2m",
    "dpmpp2msdeturbo": "dpmpp_2m_sde",
    "res2s": "dpmpp_2s_ancestral",
    "dpmsolver": "dpmpp_2m",
    "dpmsolverpp": "dpmpp_2m",
    "ddimv3": "ddim",
    "dpmpp3m": "dpmpp_2m",
}
"""Samplers that are not here, by their folded names -> the nearest."""


def known_sampler(name: str) -> tuple[str | None, str | None, str | None]:
    """(our sampler, the schedule in its name, what is to be said) for a program's name; None where there is none."""
    try:
        found, schedule = canonical_sampler(EXACTLY.get(name.strip().casefold(), name))
        return found, schedule, None
    except InvalidRequest:
        pass
    folded = fold(name).removeprefix("k")
    starts = sorted((start for start in SIMILAR if folded.startswith(start)), key=len)
    if not starts:
        return None, None, f"the sampler {name!r} is not known here; the model's own is used instead"
    near = SIMILAR[starts[-1]]
    return near, None, f"the sampler {name!r} is not known here; {SAMPLERS[near].label!r} is used instead"
