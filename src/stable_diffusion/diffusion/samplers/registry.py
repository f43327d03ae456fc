"""Which samplers there are, under which names, and what each one needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from stable_diffusion.diffusion.noise import BrownianNoise, PerImageNoise
from stable_diffusion.diffusion.samplers import ancestral, few_step, multistep, ode, sde
from stable_diffusion.diffusion.schedule import FlowSchedule
from stable_diffusion.diffusion.sigmas import SCHEDULES, fold, resolve_schedule
from stable_diffusion.errors import unknown_choice
from stable_diffusion.types import Denoiser, NoiseSource, Schedule, Step


@dataclass(frozen=True, kw_only=True)
class SamplerInfo:
    """A sampler and what to know of it.

    label      A1111's display name.
    order      order of convergence with noise switched off.
    calls      denoiser calls a step (the last step may take one less, the first of plms takes one more).
    stochastic adds noise with default options.
    brownian   its noise should come from a Brownian path.
    automatic  the schedule that A1111's "Automatic" means (for lcm and tcd: the trailing one they were distilled on).
    presets    other names that mean this sampler with these options.
    """

    id: str
    function: Callable[..., Iterator[Step]]
    label: str
    order: int
    calls: int = 1
    stochastic: bool = False
    brownian: bool = False
    automatic: str = "normal"
    aliases: tuple[str, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """Option names and their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "noise"}


class ResolvedSampler(NamedTuple):
    """`schedule` is None where the name carries none; `options` are those that the name implies."""

    sampler: SamplerInfo
    schedule: str | None
    options: dict[str, Any]


_INFOS = (
    SamplerInfo(id="euler", function=ode.euler, label="Euler", order=1, aliases=("EulerDiscreteScheduler",)),
    SamplerInfo(
        id="euler_ancestral",
        function=ancestral.euler_ancestral,
        label="Euler a",
        order=1,
        stochastic=True,
        aliases=("EulerAncestralDiscreteScheduler",),
    ),
    SamplerInfo(id="heun", function=ode.heun, label="Heun", order=2, calls=2, aliases=("HeunDiscreteScheduler",)),
    SamplerInfo(
        id="dpm_2",
        function=ode.dpm_2,
        label="DPM2",
        order=2,
        calls=2,
        automatic="karras",
        aliases=("KDPM2DiscreteScheduler",),
    ),
    SamplerInfo(
        id="dpm_2_ancestral",
        function=ancestral.dpm_2_ancestral,
        label="DPM2 a",
        order=2,
        calls=2,
        stochastic=True,
        automatic="karras",
        aliases=("KDPM2AncestralDiscreteScheduler",),
    ),
    SamplerInfo(id="lms", function=multistep.lms, label="LMS", order=4, aliases=("LMSDiscreteScheduler",)),
    SamplerInfo(
        id="dpmpp_2s_ancestral",
        function=ancestral.dpmpp_2s_ancestral,
        label="DPM++ 2S a",
        order=2,
        calls=2,
        stochastic=True,
        automatic="karras",
    ),
    SamplerInfo(
        id="dpmpp_2m",
        function=multistep.dpmpp_2m,
        label="DPM++ 2M",
        order=2,
        automatic="karras",
        aliases=("DPMSolverMultistepScheduler",),
    ),
    SamplerInfo(
        id="dpmpp_sde",
        function=sde.dpmpp_sde,
        label="DPM++ SDE",
        order=2,
        calls=2,
        stochastic=True,
        brownian=True,
        automatic="karras",
        aliases=("dpmpp_sde_gpu", "DPMSolverSDEScheduler"),
    ),
    SamplerInfo(
        id="dpmpp_2m_sde",
        function=sde.dpmpp_2m_sde,
        label="DPM++ 2M SDE",
        order=2,
        stochastic=True,
        brownian=True,
        automatic="exponential",
        aliases=("dpmpp_2m_sde_gpu",),
        presets={"DPM++ 2M SDE Heun": {"solver": "heun"}},
    ),
    SamplerInfo(
        id="dpmpp_3m_sde",
        function=sde.dpmpp_3m_sde,
        label="DPM++ 3M SDE",
        order=3,
        stochastic=True,
        brownian=True,
        automatic="exponential",
        aliases=("dpmpp_3m_sde_gpu",),
    ),
    SamplerInfo(
        id="ddim",
        function=ancestral.ddim,
        label="DDIM",
        order=1,
        automatic="ddim_uniform",
        aliases=("DDIMScheduler",),
    ),
    SamplerInfo(id="ddpm", function=ancestral.ddpm, label="DDPM", order=1, stochastic=True, aliases=("DDPMScheduler",)),
    SamplerInfo(
        id="plms",
        function=multistep.plms,
        label="PLMS",
        order=2,
        automatic="ddim_uniform",
        aliases=("PNDM", "PNDMScheduler"),
    ),
    SamplerInfo(
        id="uni_pc",
        function=multistep.uni_pc,
        label="UniPC",
        order=2,
        automatic="ddim_uniform",
        aliases=("UniPCMultistepScheduler",),
        presets={"UniPC bh1": {"variant": "bh1"}, "UniPC bh2": {"variant": "bh2"}},
    ),
    SamplerInfo(
        id="lcm",
        function=few_step.lcm,
        label="LCM",
        order=1,
        stochastic=True,
        automatic="sgm_uniform",
        aliases=("LCMScheduler",),
    ),
    SamplerInfo(
        id="tcd",
        function=few_step.tcd,
        label="TCD",
        order=1,
        stochastic=True,
        automatic="sgm_uniform",
        aliases=("TCDScheduler",),
    ),
)

SAMPLERS: dict[str, SamplerInfo] = {info.id: info for info in _INFOS}


def _folded(name: str) -> str:
    """A sampler's name for comparison: also without k-diffusion's leading "k_"."""
    plain = str(name).strip().casefold()
    return fold(plain[2:] if plain.startswith("k_") else plain)


def _spellings() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Every folded name -> (id, options that it implies)."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for info in _INFOS:
        short = info.id.replace("_ancestral", "_a")
        for name in (info.id, short, info.label, *info.aliases):
            found[_folded(name)] = (info.id, {})
        for name, options in info.presets.items():
            found[_folded(name)] = (info.id, options)
    return found


_BY_NAME = _spellings()
_SUFFIXES = {fold(name): info.id for info in SCHEDULES.values() for name in (info.id, info.label)}
_SUFFIXES |= {"ka": "karras", "exp": "exponential", "automatic": "automatic"}


def resolve_sampler(name: str) -> ResolvedSampler:
    """The sampler of an id, an A1111 display name, a k-diffusion or diffusers name, in any case.

    Combined names carry a schedule: "DPM++ 2M Karras", "k_dpmpp_2m_ka", "Euler SGM Uniform". InvalidRequest for a name
    that is not known, with the nearest one.
    """
    folded = _folded(name)
    if folded in _BY_NAME:
        sampler, options = _BY_NAME[folded]
        return ResolvedSampler(SAMPLERS[sampler], None, dict(options))
    for suffix, schedule in _SUFFIXES.items():
        if folded.endswith(suffix) and folded[: -len(suffix)] in _BY_NAME:
            sampler, options = _BY_NAME[folded[: -len(suffix)]]
            found = SAMPLERS[sampler]
            return ResolvedSampler(found, resolve_schedule(schedule, found.automatic), dict(options))
    raise unknown_choice("sampler", name, SAMPLERS)


def automatic_schedule(info: SamplerInfo, schedule: Schedule) -> str:
    """What "Automatic" means: A1111's choice for the sampler; for flow models, even (shifted) times for all."""
    return "sgm_uniform" if isinstance(schedule, FlowSchedule) else info.automatic


def noise_source(
    info: SamplerInfo, seeds: Sequence[int], shape: tuple[int, ...], schedule: Schedule
) -> PerImageNoise | BrownianNoise:
    """The noise that this sampler is meant for. The start noise is the same for both kinds."""
    return BrownianNoise(seeds, shape, schedule) if info.brownian else PerImageNoise(seeds, shape)


def sample(
    sampler: str | SamplerInfo,
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    **options: Any,
) -> Iterator[Step]:
    """The steps of one run from state x [B,C,H,W] at sigmas[0] down to sigmas[-1]; options of the sampler by name.

    InvalidRequest for an unknown sampler or option, or for unusable sigmas, at the call and not at the first step.
    """
    if isinstance(sampler, str):
        resolved = resolve_sampler(sampler)
        sampler, options = resolved.sampler, {**resolved.options, **options}
    unknown = [name for name in options if name not in sampler.options]
    if unknown:
        raise unknown_choice(f"option of sampler {sampler.id!r}", unknown[0], sampler.options)
    if noise is not None:
        options["noise"] = noise
    return sampler.function(denoise, x, sigmas, schedule, **options)
