"""What samplers and noise schedules are called: their ids, A1111's labels, and the names of other programs.

The mathematics behind an id is found in `diffusion`: a sampler's in `diffusion.samplers.SOLVERS`, a schedule's in
`diffusion.sigmas.GRIDS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import unknown_choice


@dataclass(frozen=True, kw_only=True)
class SamplerName:
    """How a sampler is called.

    label      A1111's display name.
    schedule   id of the noise schedule that A1111's "Automatic" means for it (for lcm and tcd: the trailing one that
               they were distilled on).
    aliases    other names.
    presets    other names that mean this sampler with these options.
    """

    id: str
    label: str
    schedule: str = "normal"
    aliases: tuple[str, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScheduleName:
    """How a noise schedule is called: its id, A1111's display name, and other names."""

    id: str
    label: str
    aliases: tuple[str, ...] = ()


class ResolvedSampler(NamedTuple):
    """A sampler's id; `schedule` is None where the name carries none; `options` are those that the name implies."""

    id: str
    schedule: str | None
    options: dict[str, Any]


_SAMPLERS = (
    SamplerName(
        id="euler",
        label="Euler",
        aliases=("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", "flow_match_euler"),
    ),
    SamplerName(id="euler_ancestral", label="Euler a", aliases=("EulerAncestralDiscreteScheduler",)),
    SamplerName(
        id="heun",
        label="Heun",
        aliases=("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "flow_match_heun"),
    ),
    SamplerName(id="dpm_2", label="DPM2", schedule="karras", aliases=("KDPM2DiscreteScheduler", "kdpm_2")),
    SamplerName(
        id="dpm_2_ancestral",
        label="DPM2 a",
        schedule="karras",
        aliases=("KDPM2AncestralDiscreteScheduler", "kdpm_2_a"),
    ),
    SamplerName(id="lms", label="LMS", aliases=("LMSDiscreteScheduler", "ipndm_v", "IPNDM_V")),
    SamplerName(
        id="dpmpp_2s_ancestral",
        label="DPM++ 2S a",
        schedule="karras",
        presets={"DPM++ 2S": {"eta": 0.0}, "DPMSolverSinglestepScheduler": {"eta": 0.0}},
    ),
    SamplerName(
        id="dpmpp_2m",
        label="DPM++ 2M",
        schedule="karras",
        aliases=("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"),
    ),
    SamplerName(
        id="dpmpp_sde",
        label="DPM++ SDE",
        schedule="karras",
        aliases=("dpmpp_sde_gpu", "DPMSolverSDEScheduler"),
    ),
    SamplerName(
        id="dpmpp_2m_sde",
        label="DPM++ 2M SDE",
        schedule="exponential",
        aliases=("dpmpp_2m_sde_gpu",),
        presets={"DPM++ 2M SDE Heun": {"solver": "heun"}, "dpmpp_2m_sde_heun_gpu": {"solver": "heun"}},
    ),
    SamplerName(id="dpmpp_3m_sde", label="DPM++ 3M SDE", schedule="exponential", aliases=("dpmpp_3m_sde_gpu",)),
    SamplerName(id="ddim", label="DDIM", schedule="ddim_uniform", aliases=("DDIMScheduler",)),
    SamplerName(id="ddpm", label="DDPM", aliases=("DDPMScheduler",)),
    SamplerName(id="plms", label="PLMS", schedule="ddim_uniform", aliases=("PNDM", "PNDMScheduler")),
    SamplerName(
        id="uni_pc",
        label="UniPC",
        schedule="ddim_uniform",
        aliases=("UniPCMultistepScheduler",),
        presets={"UniPC bh1": {"variant": "bh1"}, "UniPC bh2": {"variant": "bh2"}},
    ),
    SamplerName(id="lcm", label="LCM", schedule="sgm_uniform", aliases=("LCMScheduler",)),
    SamplerName(id="tcd", label="TCD", schedule="sgm_uniform", aliases=("TCDScheduler",)),
    SamplerName(id="dpm_fast", label="DPM fast"),
    SamplerName(id="dpm_adaptive", label="DPM adaptive", aliases=("dpm_ad",)),
    SamplerName(id="restart", label="Restart", schedule="karras", aliases=("restart_sampler", "sample_restart")),
    SamplerName(id="euler_cfg_pp", label="Euler CFG++", aliases=("euler_cfgpp",)),
    SamplerName(id="euler_ancestral_cfg_pp", label="Euler a CFG++", aliases=("euler_a_cfg_pp",)),
    SamplerName(id="ddim_cfg_pp", label="DDIM CFG++", schedule="ddim_uniform", aliases=("ddim_cfgpp",)),
    SamplerName(id="deis", label="DEIS", aliases=("deis_multistep", "DEISMultistepScheduler")),
    SamplerName(id="ipndm", label="IPNDM", aliases=("IPNDMScheduler",)),
    SamplerName(
        id="res_multistep",
        label="RES multistep",
        aliases=("Res Multistep", "refined exponential solver"),
    ),
    SamplerName(id="res_multistep_ancestral", label="RES multistep a", aliases=("res_multistep_ancestral",)),
    SamplerName(id="er_sde", label="ER-SDE", aliases=("er_sde_solver",)),
    SamplerName(id="sa_solver", label="SA-Solver", aliases=("SASolverScheduler",)),
)

_SCHEDULES = (
    ScheduleName(id="normal", label="Normal", aliases=("uniform", "linspace", "discrete")),
    ScheduleName(id="karras", label="Karras"),
    ScheduleName(id="exponential", label="Exponential"),
    ScheduleName(id="sgm_uniform", label="SGM Uniform", aliases=("trailing", "turbo", "sgm")),
    ScheduleName(id="simple", label="Simple"),
    ScheduleName(id="ddim_uniform", label="DDIM uniform", aliases=("ddim", "leading")),
    ScheduleName(id="beta", label="Beta"),
    ScheduleName(id="kl_optimal", label="KL Optimal"),
    ScheduleName(id="ays", label="Align Your Steps", aliases=("align_your_steps_11",)),
    ScheduleName(id="gits", label="Align Your Steps GITS", aliases=("ays_gits", "GITS")),
    ScheduleName(id="lcm", label="LCM"),
    ScheduleName(id="polyexponential", label="Polyexponential"),
    ScheduleName(id="linear_quadratic", label="Linear-quadratic"),
)

SAMPLERS: dict[str, SamplerName] = {name.id: name for name in _SAMPLERS}
"""Every sampler by its id, in the order in which they are listed."""
SCHEDULES: dict[str, ScheduleName] = {name.id: name for name in _SCHEDULES}
"""Every noise schedule by its id, in the order in which they are listed."""
AUTOMATIC = "automatic"
"""The schedule that A1111 would take for the sampler: see `automatic_schedule`."""


def fold(name: str) -> str:
    """How names are compared: lower case, "++" as "pp", without spaces, hyphens, underscores and dots."""
    return "".join(c for c in str(name).casefold().replace("++", "pp") if c not in " -_.\t")


def _fold_sampler(name: str) -> str:
    """A sampler's name for comparison: also without k-diffusion's leading "k_" or "sample_"."""
    return fold(str(name).strip().casefold().removeprefix("sample_").removeprefix("k_"))


def _sampler_spellings(samplers: Iterable[SamplerName]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Every folded name -> (id, options that it implies)."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for each in samplers:
        short = each.id.replace("_ancestral", "_a")
        for name in (each.id, short, each.label, *each.aliases):
            found[_fold_sampler(name)] = (each.id, {})
        for name, options in each.presets.items():
            found[_fold_sampler(name)] = (each.id, options)
    return found


_SAMPLER_BY_NAME = _sampler_spellings(_SAMPLERS)
_SCHEDULE_BY_NAME = {fold(name): each.id for each in _SCHEDULES for name in (each.id, each.label, *each.aliases)}
_SUFFIXES = {fold(name): each.id for each in _SCHEDULES for name in (each.id, each.label, *each.aliases)}
_SUFFIXES |= {"ka": "karras", "exp": "exponential", AUTOMATIC: AUTOMATIC}


def resolve_sampler(name: str) -> ResolvedSampler:
    """The sampler of an id, an A1111 display name, a k-diffusion or diffusers name, in any case.

    Combined names carry a schedule: "DPM++ 2M Karras", "k_dpmpp_2m_ka", "Euler SGM Uniform". InvalidRequest for a name
    that is not known, with the nearest one.
    """
    folded = _fold_sampler(name)
    if folded in _SAMPLER_BY_NAME:
        sampler, options = _SAMPLER_BY_NAME[folded]
        return ResolvedSampler(sampler, None, dict(options))
    for suffix, schedule in _SUFFIXES.items():
        if folded.endswith(suffix) and folded[: -len(suffix)] in _SAMPLER_BY_NAME:
            sampler, options = _SAMPLER_BY_NAME[folded[: -len(suffix)]]
            return ResolvedSampler(sampler, resolve_schedule(schedule, SAMPLERS[sampler].schedule), dict(options))
    raise unknown_choice("sampler", name, SAMPLERS)


def resolve_schedule(name: str | None, automatic: str = "normal") -> str:
    """Schedule id for an id, an A1111 label or an alias in any case; `automatic` for "Automatic" and None.

    Which id `automatic` should be depends on sampler and model: see `automatic_schedule`.
    """
    if name is None or fold(name) in (AUTOMATIC, "auto"):
        return automatic
    if fold(name) not in _SCHEDULE_BY_NAME:
        raise unknown_choice("schedule", name, [*SCHEDULES, AUTOMATIC])
    return _SCHEDULE_BY_NAME[fold(name)]


def automatic_schedule(sampler: str, *, flow: bool) -> str:
    """What "Automatic" means for the sampler of this id: A1111's choice; for flow models, even (shifted) times."""
    return "sgm_uniform" if flow else SAMPLERS[sampler].schedule


def canonical_sampler(name: str) -> tuple[str, str | None]:
    """(sampler, schedule or None) for any accepted name: the sampler's id, or the name of a preset of its options."""
    found, schedule, options = resolve_sampler(name)
    presets = SAMPLERS[found].presets
    preset = next((preset for preset, implied in presets.items() if dict(implied) == options), None)
    return (found if preset is None or not options else preset), schedule
