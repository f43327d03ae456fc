"""Models distilled to a few steps (Turbo, Lightning, LCM, Hyper): what they are called, and how they want to be run.

The weights of such a model have the shapes of the model it was made from, so only its name, or the scheduler of its
folder, tells. Sources: Sauer et al. 2023, "Adversarial diffusion distillation"; Lin et al. 2024, "SDXL-Lightning"; Luo
et al. 2023, "Latent consistency models"; Ren et al. 2024, "Hyper-SD"; Yin et al. 2024, "DMD2".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..models.mmdit import MMDiTConfig
from ..models.unet import UNetConfig
from .parts import Defaults

SCHEDULE = "sgm_uniform"
"""Nearly all of them were trained on timesteps that are counted from the last one ("trailing")."""


@dataclass(frozen=True)
class FewSteps:
    """Settings of one kind; guidance 1 means none, which is distilled into the weights."""

    steps: int
    sampler: str
    schedule: str = SCHEDULE


KINDS = {
    "turbo": FewSteps(4, "euler_ancestral"),
    "lightning": FewSteps(4, "euler"),
    "lcm": FewSteps(4, "lcm", "lcm"),
    "hyper": FewSteps(8, "ddim"),
    "dmd2": FewSteps(4, "lcm"),
}
SCHEDULERS = {"LCMScheduler": "lcm", "TCDScheduler": "hyper"}
MOST_STEPS = 16
TOLD_GUIDANCE = 8.5
"""Guidance of models that are told it (Luo et al. 2023), as in the pipeline that was released with them."""


def few_step_defaults(defaults: Defaults, *names: str, flow: bool = False) -> tuple[Defaults, tuple[str, ...]]:
    """The defaults of a model of these names (title, file name), and a sentence where a name says that it is quick.

    A `flow` model (Stable Diffusion 3.5 large turbo) keeps its own sampler and noise schedule.
    """
    for name in names:
        words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
        kind = next((word for word in words if word in KINDS), None)
        if kind is None:
            continue
        found = re.search(r"(\d+)[-_ ]?steps?", name.lower())
        steps = int(found[1]) if found is not None and 1 <= int(found[1][:4]) <= MOST_STEPS else KINDS[kind].steps
        made = replace(defaults, steps=steps, guidance=1.0) if flow else _hurried(defaults, kind, steps)
        if re.search(r"sd[-_]?xl[-_]?turbo", name.lower()):  # the released one; fine-tunes of it paint at full size
            made = replace(made, width=512, height=512)
        return made, (f"{made.steps} steps without guidance are a guess from the word {kind!r} in the name {name!r}",)
    return defaults, ()


def scheduler_defaults(defaults: Defaults, scheduler: Mapping[str, Any]) -> Defaults | None:
    """The defaults of a folder whose scheduler is one of few steps, None for all others."""
    name = str(scheduler.get("_class_name", ""))
    trailing = scheduler.get("timestep_spacing") == "trailing"
    kind = SCHEDULERS.get(name) or ("turbo" if name == "EulerAncestralDiscreteScheduler" and trailing else None)
    return None if kind is None else _hurried(defaults, kind, KINDS[kind].steps)


def told_defaults(defaults: Defaults, network: UNetConfig | MMDiTConfig) -> Defaults | None:
    """The defaults of a network that is told its guidance, which only latent consistency models are; else None."""
    if not isinstance(network, UNetConfig) or network.guidance_dim is None:
        return None
    steps = defaults.steps if defaults.guidance == 1 else KINDS["lcm"].steps  # 1: a name has told the steps
    return replace(_hurried(defaults, "lcm", steps), guidance=TOLD_GUIDANCE)


def _hurried(defaults: Defaults, kind: str, steps: int) -> Defaults:
    made = KINDS[kind]
    return replace(defaults, steps=steps, guidance=1.0, sampler=made.sampler, schedule=made.schedule)
