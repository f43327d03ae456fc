"""The samplers: plain functions that check their input and return a generator of `Step`.

info, schedule_id, options = resolve_sampler("DPM++ 2M Karras")
source = noise_source(info, seeds, (C, H, W), schedule)
for step in sample(info, denoise, x, sigmas, schedule, noise=source, **options): ...
"""

from .catalogue import SamplerInfo
from .registry import SAMPLERS, ResolvedSampler, automatic_schedule, noise_source, resolve_sampler, sample

__all__ = [
    "SAMPLERS",
    "ResolvedSampler",
    "SamplerInfo",
    "automatic_schedule",
    "noise_source",
    "resolve_sampler",
    "sample",
]
