"""The names of samplers and noise schedules: ids, A1111's labels, and what other programs call them.

What stands behind a name is in `diffusion`, found by its id; a test checks that each has the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import unknown_choice

AUTOMATIC = "automatic"
"""The schedule that A1111 takes for the sampler."""


@dataclass(frozen=True)
class SamplerName:
    """`label` is A1111's name, `automatic` the schedule that its "Automatic" means, and `presets` are other names that
    mean this sampler with these options."""

    id: str
    label: str
    automatic: str = "normal"
    aliases: tuple[str, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class ScheduleName:
    """`label` is A1111's name."""

    id: str
    label: str
    aliases: tuple[str, ...] = ()


SAMPLERS: dict[str, SamplerName] = {
    name.id: name
    for name in (
        SamplerName(
            "euler",
            "Euler",
            aliases=(
                "EulerDiscreteScheduler",
                "FlowMatchEulerDiscreteScheduler",
                "EDMEulerScheduler",
                "flow_match_euler",
            ),
        ),
        SamplerName("euler_ancestral", "Euler a", aliases=("EulerAncestralDiscreteScheduler",)),
        SamplerName(
            "heun", "Heun", aliases=("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "flow_match_heun")
        ),
        SamplerName("dpm_2", "DPM2", automatic="karras", aliases=("KDPM2DiscreteScheduler", "kdpm_2")),
        SamplerName(
            "dpm_2_ancestral", "DPM2 a", automatic="karras", aliases=("KDPM2AncestralDiscreteScheduler", "kdpm_2_a")
        ),
        SamplerName("lms", "LMS", aliases=("LMSDiscreteScheduler", "ipndm_v", "IPNDM_V")),
        SamplerName(
            "dpmpp_2s_ancestral",
            "DPM++ 2S a",
            automatic="karras",
            presets={"DPM++ 2S": {"eta": 0.0}, "DPMSolverSinglestepScheduler": {"eta": 0.0}},
        ),
        SamplerName(
            "dpmpp_2m",
            "DPM++ 2M",
            automatic="karras",
            aliases=("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"),
        ),
        SamplerName("dpmpp_sde", "DPM++ SDE", automatic="karras", aliases=("dpmpp_sde_gpu", "DPMSolverSDEScheduler")),
        SamplerName(
            "dpmpp_2m_sde",
            "DPM++ 2M SDE",
            automatic="exponential",
            aliases=("dpmpp_2m_sde_gpu",),
            presets={"DPM++ 2M SDE Heun": {"solver": "heun"}, "dpmpp_2m_sde_heun_gpu": {"solver": "heun"}},
        ),
        SamplerName("dpmpp_3m_sde", "DPM++ 3M SDE", automatic="exponential", aliases=("dpmpp_3m_sde_gpu",)),
        SamplerName("ddim", "DDIM", automatic="ddim_uniform", aliases=("DDIMScheduler",)),
        SamplerName("ddpm", "DDPM", aliases=("DDPMScheduler",)),
        SamplerName("plms", "PLMS", automatic="ddim_uniform", aliases=("PNDM", "PNDMScheduler")),
        SamplerName(
            "uni_pc",
            "UniPC",
            automatic="ddim_uniform",
            aliases=("UniPCMultistepScheduler",),
            presets={"UniPC bh1": {"variant": "bh1"}, "UniPC bh2": {"variant": "bh2"}},
        ),
        SamplerName("lcm", "LCM", automatic="sgm_uniform", aliases=("LCMScheduler",)),
        SamplerName("tcd", "TCD", automatic="sgm_uniform", aliases=("TCDScheduler",)),
        SamplerName("dpm_fast", "DPM fast"),
        SamplerName("dpm_adaptive", "DPM adaptive", aliases=("dpm_ad",)),
        SamplerName("restart", "Restart", automatic="karras", aliases=("restart_sampler", "sample_restart")),
        SamplerName("euler_cfg_pp", "Euler CFG++", aliases=("euler_cfgpp",)),
        SamplerName("euler_ancestral_cfg_pp", "Euler a CFG++", aliases=("euler_a_cfg_pp",)),
        SamplerName("ddim_cfg_pp", "DDIM CFG++", automatic="ddim_uniform", aliases=("ddim_cfgpp",)),
        SamplerName("deis", "DEIS", aliases=("deis_multistep", "DEISMultistepScheduler")),
        SamplerName("ipndm", "IPNDM", aliases=("IPNDMScheduler",)),
        SamplerName("res_multistep", "RES multistep", aliases=("Res Multistep", "refined exponential solver")),
        SamplerName("res_multistep_ancestral", "RES multistep a", aliases=("res_multistep_ancestral",)),
        SamplerName("er_sde", "ER-SDE", aliases=("er_sde_solver",)),
        SamplerName("sa_solver", "SA-Solver", aliases=("SASolverScheduler",)),
    )
}
SCHEDULES: dict[str, ScheduleName] = {
    name.id: name
    for name in (
        ScheduleName("normal", "Normal", aliases=("uniform", "linspace", "discrete")),
        ScheduleName("karras", "Karras"),
        ScheduleName("exponential", "Exponential"),
        ScheduleName("sgm_uniform", "SGM Uniform", aliases=("trailing", "turbo", "sgm")),
        ScheduleName("simple", "Simple"),
        ScheduleName("ddim_uniform", "DDIM uniform", aliases=("ddim", "leading")),
        ScheduleName("beta", "Beta"),
        ScheduleName("kl_optimal", "KL Optimal"),
        ScheduleName("ays", "Align Your Steps", aliases=("align_your_steps_11",)),
        ScheduleName("gits", "Align Your Steps GITS", aliases=("ays_gits", "GITS")),
        ScheduleName("lcm", "LCM"),
        ScheduleName("polyexponential", "Polyexponential"),
        ScheduleName("linear_quadratic", "Linear-quadratic"),
    )
}


class NamedSampler(NamedTuple):
    """What a name means: `schedule` is None where it carries none; `options` are those that it implies."""

    sampler: str
    schedule: str | None
    options: dict[str, Any]


def fold(name: str) -> str:
    """How names are compared: lower case, "++" as "pp", without spaces, hyphens, underscores and dots."""
    return "".join(c for c in str(name).casefold().replace("++", "pp") if c not in " -_.\t")


def _folded(name: str) -> str:
    """A sampler's name for comparison: also without k-diffusion's leading "k_" or "sample_"."""
    return fold(str(name).strip().casefold().removeprefix("sample_").removeprefix("k_"))


def _spellings() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Every folded name -> (id, options that it implies)."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for info in SAMPLERS.values():
        short = info.id.replace("_ancestral", "_a")
        for name in (info.id, short, info.label, *info.aliases):
            found[_folded(name)] = (info.id, {})
        for name, options in info.presets.items():
            found[_folded(name)] = (info.id, options)
    return found


_BY_NAME = _spellings()
_SCHEDULES = {fold(s): i.id for i in SCHEDULES.values() for s in (i.id, i.label, *i.aliases)}
_SUFFIXES = {fold(name): info.id for info in SCHEDULES.values() for name in (info.id, info.label)}
_SUFFIXES |= {"ka": "karras", "exp": "exponential", "automatic": AUTOMATIC}


def find_sampler(name: str) -> NamedSampler:
    """The sampler of an id, an A1111 display name, a k-diffusion or diffusers name, in any case.

    Combined names carry a schedule: "DPM++ 2M Karras", "k_dpmpp_2m_ka", "Euler SGM Uniform". InvalidRequest for a name
    that is not known, with the nearest one.
    """
    folded = _folded(name)
    if folded in _BY_NAME:
        sampler, options = _BY_NAME[folded]
        return NamedSampler(sampler, None, dict(options))
    for suffix, schedule in _SUFFIXES.items():
        if folded.endswith(suffix) and folded[: -len(suffix)] in _BY_NAME:
            sampler, options = _BY_NAME[folded[: -len(suffix)]]
            return NamedSampler(sampler, find_schedule(schedule, SAMPLERS[sampler].automatic), dict(options))
    raise unknown_choice("sampler", name, SAMPLERS)


def find_schedule(name: str | None, automatic: str = "normal") -> str:
    """Schedule id for an id, an A1111 label or an alias in any case; `automatic` for "Automatic" and None."""
    if name is None or fold(name) in (AUTOMATIC, "auto"):
        return automatic
    if fold(name) not in _SCHEDULES:
        raise unknown_choice("schedule", name, [*SCHEDULES, AUTOMATIC])
    return _SCHEDULES[fold(name)]


def canonical_sampler(name: str) -> tuple[str, str | None]:
    """(sampler, schedule or None) for any accepted name: the sampler's id, or the name of a preset of its options."""
    found, schedule, options = find_sampler(name)
    preset = next((p for p, implied in SAMPLERS[found].presets.items() if dict(implied) == options), None)
    return (found if preset is None or not options else preset), schedule
