"""Cases of `frozen`: every sampler and every noise schedule, on three kinds of model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from frozen_paint import Case
from frozen_shop import Shop, picture

MODELS = ("sd1", "native", "sd3")
OPTIONS: dict[str, Any] = {"eta": 0.4, "s_churn": 3.0, "s_tmin": 0.02, "s_tmax": 30.0, "s_noise": 1.01}


def samplers(shop: Shop) -> Iterator[Case]:
    """From text on each model; from a picture; with every option; three at once; one step; and those with presets."""
    from stable_diffusion import SAMPLERS

    for name in sorted(SAMPLERS):
        for model in MODELS:
            yield Case(name, model, {"sampler": name, "steps": 5})
        image = {"sampler": name, "steps": 6, "image": picture(), "strength": 0.6}
        yield Case(f"{name}-picture", "sd1", image)
        yield Case(f"{name}-options", "sd1", {"sampler": name, "steps": 5, "noise": {**OPTIONS, "seed_delta": 7}})
        yield Case(f"{name}-three", "native", {"sampler": name, "count": 3, "guidance": 1.0}, batch=3)
        yield Case(f"{name}-one-step", "sd1", {"sampler": name, "steps": 1})
        for preset in SAMPLERS[name].presets:
            yield Case(preset, "sd1", {"sampler": preset, "steps": 5})

    for model in MODELS:
        yield Case("restart-restarts", model, {"sampler": "restart", "steps": 24})


def schedules(shop: Shop) -> Iterator[Case]:
    from stable_diffusion import SCHEDULES

    for name in ("automatic", *sorted(SCHEDULES)):
        for model in MODELS:
            yield Case(name, model, {"schedule": name, "sampler": "euler", "steps": 5})
        yield Case(f"{name}-sde", "sd1", {"schedule": name, "sampler": "dpmpp_2m_sde", "steps": 4})
    for name in ("DPM++ 2M Karras", "k_dpmpp_2m_ka", "Euler SGM Uniform", "DDIMScheduler"):
        yield Case(name, "sd1", {"sampler": name})
    for sampler in ("dpm_2", "dpmpp_2m", "ddim", "lcm", "dpmpp_sde"):
        yield Case(f"own-{sampler}", "sd1", {"sampler": sampler, "schedule": None})
