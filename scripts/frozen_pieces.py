"""Entries of `frozen` about the parts of a loaded model, used alone as the documentation shows it."""

from __future__ import annotations

from typing import Any

import frozen_hooks as hooks
import torch
from frozen_paint import PROMPT, Entries, Entry, digest
from frozen_shop import Shop, picture

MODELS = ("sd1", "native", "sdxl", "sd3")
RUN: dict[str, Any] = {"seed": 3, "size": (4, 6), "steps": 5, "guidance": 3.0, "schedule": "karras"}
OPTIONS: dict[str, dict[str, tuple[Any, ...]]] = {
    "lms": {"order": (1, 2, 3)},
    "dpmpp_sde": {"r": (0.3,)},
    "dpmpp_2m_sde": {"solver": ("heun",)},
    "uni_pc": {"order": (1, 3), "variant": ("bh1",), "lower_order_final": (False,)},
    "tcd": {"eta": (0.0, 1.0)},
    "dpm_adaptive": {"order": (2,), "rtol": (0.5,), "atol": (0.5,)},
    "restart": {"restarts": (0, 2, -1)},
    "deis": {"order": (1, 2), "lower_order_final": (True,)},
    "ipndm": {"order": (1, 2, 3)},
    "er_sde": {"order": (1, 2), "form": ("sde", "ode")},
    "sa_solver": {"order": (1, 3), "corrector_order": (1, 3), "lower_order_final": (False,)},
}
"""Sampler -> options that no request has, with values besides their own."""


def pieces(shop: Shop) -> Entries:
    for name in MODELS:
        yield f"{name}/text", encoded(shop.model(name))
        yield f"{name}/latent", latents(shop.model(name))
        yield f"{name}/forward", forward(shop.model(name))
        for final in ("zero", "sigma_min"):
            yield f"{name}/steps-{final}", steps(shop.model(name), sampler="euler", final=final)
        start = shop.model(name).image_encoder(to_size(name))
        yield f"{name}/from-latent", steps(shop.model(name), sampler="ddim", latent=start, strength=0.6)
        yield f"{name}/two-seeds", steps(shop.model(name), sampler="heun", seed=[3, 9])
    for sampler, options in OPTIONS.items():
        for option, values in options.items():
            for value in values:
                long = {"steps": 24} if sampler == "restart" else {}
                made = steps(shop.model("sd1"), sampler=sampler, **{option: value}, **long)
                yield f"sd1/{sampler}-{option}-{value}", made
    for final in ("ddim", "plms"):
        yield f"sd1/{final}-sigma_min", steps(shop.model("sd1"), sampler=final, final="sigma_min")


def to_size(name: str) -> Any:
    return picture(mode="RGBA" if name == "native" else "RGB")


def steps(model: Any, **settings: Any) -> Entry:
    """Every state of a run, what was expected of it, and its levels."""
    import stable_diffusion as sd

    try:
        with hooks.counting() as counts:
            run = list(model.denoising_process(PROMPT, "a dog", **{**RUN, **settings}))
    except sd.StableDiffusionError as error:
        return {"refused": type(error).__name__}
    return {
        "latent": digest(*[part for step in run for part in (step.x, step.denoised)]),
        "sigmas": digest([(step.index, step.total, step.sigma) for step in run]),
        **{name: counts[name] for name in hooks.COUNTS if counts[name]},
    }


def encoded(model: Any) -> Entry:
    """What the text encoder makes of a prompt, and which of its positions belong to which word."""
    found = model.text_encoder("a (red:1.3) cat BREAK on a [mat], é")
    tensors = [found.tokens, found.pooled, found.vector]
    words = [(word.text, list(word.positions)) for word in model.text_encoder.words("a (red:1.3) cat, on mats")]
    return {"latent": digest(*[tensor for tensor in tensors if tensor is not None]), "words": digest(words)}


def latents(model: Any) -> Entry:
    """Picture to latent, its mean and a sample; and back, before and after rounding."""
    alpha = hooks.has_alpha(model)
    mean = model.image_encoder(picture(mode="RGBA" if alpha else "RGB"))
    sample = model.image_encoder(picture(), seed=4)
    images = [image.tobytes() for image in model.image_decoder(mean)]
    return {
        "latent": digest(mean, sample),
        "floats": digest(model.image_decoder.straight(sample)),
        "pixels": digest(*images, model.image_decoder.preview(mean).tobytes()),
    }


def forward(model: Any) -> Entry:
    """The forward process, in one jump and as a chain."""
    x0 = torch.randn(2, hooks.latent_channels(model), 4, 6, generator=torch.Generator().manual_seed(2))
    process = model.diffusion_process
    jumps = [process.add_gaussian_noise(x0, t, seed=5) for t in (0, 250.5, 999)]
    chain = list(process.chain(x0, [10, 400, 900], seed=6))
    levels = [(state.timestep, state.sigma, state.signal, state.spread) for state in chain]
    return {"latent": digest(*jumps, *[state.x for state in chain]), "sigmas": digest(levels)}
