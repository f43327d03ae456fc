"""Which samplers there are, under which names, and what each one needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import unknown_choice
from ...types import Denoiser, NoiseSource, Schedule, Step
from ..noise import BrownianNoise, NoiseKind, PerImageNoise, noise_streams
from ..schedule import FlowSchedule
from ..sigmas import SCHEDULES, fold, resolve_schedule
from .catalogue import INFOS, SamplerInfo


class ResolvedSampler(NamedTuple):
    """`schedule` is None where the name carries none; `options` are those that the name implies."""

    sampler: SamplerInfo
    schedule: str | None
    options: dict[str, Any]


SAMPLERS: dict[str, SamplerInfo] = {info.id: info for info in INFOS}


def _folded(name: str) -> str:
    """A sampler's name for comparison: also without k-diffusion's leading "k_" or "sample_"."""
    return fold(str(name).strip().casefold().removeprefix("sample_").removeprefix("k_"))


def _spellings() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Every folded name -> (id, options that it implies)."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for info in INFOS:
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
    info: SamplerInfo,
    seeds: Sequence[int],
    shape: tuple[int, ...],
    schedule: Schedule,
    *,
    kind: NoiseKind = "cpu",
    device: torch.device | str = "cpu",
    seed_delta: int = 0,
) -> PerImageNoise | BrownianNoise:
    """The noise that this sampler is meant for. The start noise is the same for both kinds.

    kind        the generator: see `noise`; `device` is that of "device"
    seed_delta  added to the seeds for all noise after the start (A1111's "eta noise seed delta", ENSD)
    """
    streams = noise_streams(seeds, shape, kind, device, seed_delta)
    return BrownianNoise(seeds, shape, schedule, streams) if info.brownian else PerImageNoise(seeds, shape, streams)


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
