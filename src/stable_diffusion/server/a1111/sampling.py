"""Sampler, schedule and noise: A1111's fields as ours, and whether A1111 counts such a run otherwise than diffusers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...diffusion.a1111 import ON_TIMESTEPS
from ...diffusion.samplers import SOLVERS
from ...request.names import SAMPLERS, canonical_sampler, fold, resolve_sampler, resolve_schedule
from .bodies import Generation
from .options import SOURCES, Options

COUNTED_OTHERWISE = ("sgm_uniform", "ddim_uniform")
"""Schedules whose levels A1111 places otherwise."""
USUAL = {"eta": (0.0, 1.0), "s_churn": (0.0,), "s_tmin": (0.0,), "s_noise": (1.0,)}
"""Values that clients send whatever the sampler is: they say nothing where it has no such setting."""


def sampling(body: Generation) -> dict[str, Any]:
    """`sampler` and `schedule` of a request; InvalidRequest for an unknown name.

    "Automatic" and no scheduler at all leave the schedule to the sampler, and that of "DPM++ 2M Karras" to its name.
    """
    found: dict[str, Any] = {}
    sampler = body.sampler_name or body.sampler_index
    if sampler:
        canonical_sampler(sampler)
        found["sampler"] = sampler
    if body.scheduler and fold(body.scheduler) not in ("automatic", "auto", "usesamescheduler"):
        found["schedule"] = resolve_schedule(body.scheduler)
    return found


def noise(body: Generation, options: Options) -> dict[str, Any]:
    """The group `noise` of a request: what differs from the sampler's own settings; `s_tmax` 0 is no limit."""
    found: dict[str, Any] = {}
    if SOURCES[options.randn_source] != "cpu":
        found["source"] = SOURCES[options.randn_source]
    if options.eta_noise_seed_delta:
        found["seed_delta"] = options.eta_noise_seed_delta
    sampler = body.sampler_name or body.sampler_index
    own = dict(SOLVERS[resolve_sampler(sampler).id].options) if sampler else {}
    for name in ("eta", "s_churn", "s_tmin", "s_noise"):
        value = getattr(body, name)
        has = name in own
        if value is not None and not (value == own[name] if has else value in USUAL[name]):
            found[name] = value
    if body.s_tmax > 0:
        found["s_tmax"] = body.s_tmax
    return found


def counts_otherwise(body: Generation, prompts: Iterable[str], *, has_image: bool) -> bool:
    """Whether A1111's way of counting steps and placing levels gives another picture than diffusers' way."""
    sampler = body.sampler_name or body.sampler_index
    if has_image:
        return True
    if not sampler:
        return False
    found = resolve_sampler(sampler)
    chosen = sampling(body).get("schedule") or found.schedule or SAMPLERS[found.id].schedule
    edited = any("[" in prompt for prompt in prompts) and SOLVERS[found.id].calls == 2
    return edited or chosen in COUNTED_OTHERWISE or found.id in ON_TIMESTEPS
