"""Models distilled to a few steps (Turbo, Lightning, LCM, TCD, Hyper): what they are called, and how they are run.

The weights of such a model have the shapes of the model it was made from, so only its name, or the scheduler of its
folder, says so; what we write says it in a note besides. Sources: Sauer et al. 2023, "Adversarial diffusion
distillation"; Lin et al. 2024, "SDXL-Lightning"; Luo et al. 2023, "Latent consistency models"; Zheng et al. 2024,
"Trajectory consistency distillation"; Ren et al. 2024, "Hyper-SD"; Yin et al. 2024, "DMD2".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...errors import InvalidRequest
from ...models.mmdit import MMDiTConfig
from ...models.unet import UNetConfig
from ...request.names import resolve_sampler, resolve_schedule
from ..parts import Defaults

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
    "tcd": FewSteps(4, "tcd", "lcm"),
    "hyper": FewSteps(8, "ddim"),
    "dmd2": FewSteps(4, "lcm"),
}
SCHEDULERS = {"LCMScheduler": "lcm", "TCDScheduler": "tcd"}
"""Schedulers that no other model has. DDIM and Euler on trailing timesteps, which Hyper and Lightning are sampled with,
are not among them: models of many steps have both."""
NOTE = "_stable_diffusion"
"""Where a scheduler_config.json keeps our note; diffusers leaves names with an underscore to whoever wrote them."""
METADATA = "stable_diffusion.sampling"
"""Where the header of a single file keeps it, as JSON."""
MOST_STEPS = 16
GUIDED = 8.5
"""Guidance of models that take it as an input (Luo et al. 2023), as in the pipeline that was released with them."""


def few_step_defaults(defaults: Defaults, *names: str, flow: bool = False) -> tuple[Defaults, tuple[str, ...]]:
    """The defaults of a model of these names (title, file name), and a sentence where a name says "few steps".

    A `flow` model (Stable Diffusion 3.5 large turbo) keeps its own sampler and noise schedule.
    """
    for name in names:
        words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
        kind = next((word for word in words if word in KINDS), None)
        if kind is None:
            continue
        steps = _steps_in(name) or KINDS[kind].steps
        made = replace(defaults, steps=steps, guidance=1.0) if flow else _with_kind(defaults, kind, steps)
        if re.search(r"sd[-_]?xl[-_]?turbo", name.lower()):  # the released one; fine-tunes of it paint at full size
            made = replace(made, width=512, height=512)
        return made, (f"{made.steps} steps without guidance are a guess from the word {kind!r} in the name {name!r}",)
    return defaults, ()


def scheduler_defaults(
    defaults: Defaults, scheduler: Mapping[str, Any], name: str = ""
) -> tuple[Defaults, tuple[str, ...]] | None:
    """The defaults of a folder whose scheduler is one of few steps, None for all others.

    The sentence says that the number of steps is one that the folder's `name` has.
    """
    kind = _kind_of_scheduler(scheduler)
    if kind is None:
        return None
    steps = _steps_in(name)
    if steps is None:
        return _with_kind(defaults, kind, KINDS[kind].steps), ()
    return _with_kind(defaults, kind, steps), (f"{steps} steps are a guess from the name {name!r}",)


def _kind_of_scheduler(scheduler: Mapping[str, Any]) -> str | None:
    """The kind that a scheduler_config.json says."""
    name, trained = str(scheduler.get("_class_name", "")), scheduler.get("num_train_timesteps", 1000)
    if name == "LCMScheduler" and scheduler.get("original_inference_steps") == trained:
        return "dmd2"  # any timestep, and not those of a solver of 50 steps alone
    trailing = scheduler.get("timestep_spacing") == "trailing" and not scheduler.get("rescale_betas_zero_snr")
    return SCHEDULERS.get(name) or ("turbo" if name == "EulerAncestralDiscreteScheduler" and trailing else None)


def guided_defaults(defaults: Defaults, network: UNetConfig | MMDiTConfig) -> Defaults | None:
    """The defaults of a network that takes its guidance as an input, as latent consistency models do; else None."""
    if not isinstance(network, UNetConfig) or network.guidance_dim is None:
        return None
    steps = defaults.steps if defaults.guidance == 1 else KINDS["lcm"].steps  # 1: the steps are those of a name
    return replace(_with_kind(defaults, "lcm", steps), guidance=GUIDED)


def is_few_step(defaults: Defaults) -> bool:
    """Whether these are the settings of a model of few steps."""
    return defaults.steps <= MOST_STEPS and (defaults.guidance == 1 or defaults.sampler == "lcm")


def few_step_note(defaults: Defaults) -> dict[str, Any] | None:
    """What is written beside a model of few steps, so that no name has to be guessed from; None for all others."""
    return asdict(defaults) if is_few_step(defaults) else None


def noted_defaults(defaults: Defaults, note: Any) -> Defaults | None:
    """The inverse of `few_step_note`: `defaults` with what a note says, None where there is no note.

    InvalidRequest where one of its values is none that we know.
    """
    if note is None:
        return None
    if not isinstance(note, Mapping):
        raise InvalidRequest(f"the note on sampling is {repr(note)[:40]}; a table of settings is expected")
    noted = replace(defaults, **{name: note[name] for name in asdict(defaults) if name in note})
    resolve_sampler(noted.sampler)
    resolve_schedule(noted.schedule, SCHEDULE)
    return noted


def _steps_in(name: str) -> int | None:
    """The number of steps that a name has, as in `sdxl_lightning_4step`."""
    found = re.search(r"(\d+)[-_ ]?steps?", name.lower())
    return int(found[1]) if found is not None and 1 <= int(found[1][:4]) <= MOST_STEPS else None


def _with_kind(defaults: Defaults, kind: str, steps: int) -> Defaults:
    made = KINDS[kind]
    return replace(defaults, steps=steps, guidance=1.0, sampler=made.sampler, schedule=made.schedule)
