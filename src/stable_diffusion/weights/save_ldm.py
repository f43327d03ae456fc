"""A model as one file in the layout of the released checkpoints: names, tensors, and the metadata that describes them.

Metadata follows the Stability AI model specification 1.0 (`modelspec.*`). What such a file has no place for (another
noise schedule, another scale of latents) is an error, because a reader would take the family's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..diffusion.schedule import ddpm_schedule
from ..errors import InvalidRequest
from ..models.clip import CLIPTextConfig
from ..models.unet import UNet
from .diffusers import clip_transformers
from .families import Family, TextPlace, family_named
from .ldm import unet_ldm, vae_ldm
from .openclip import clip_openclip
from .parts import Parts
from .recognise import UNET, VAE

ARCHITECTURES = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2-768-v",
    "sd2-base": "stable-diffusion-v2-512",
    "sd1-inpaint": "stable-diffusion-v1-inpainting",
    "sd2-inpaint": "stable-diffusion-v2-inpainting",
    "sd2-depth": "stable-diffusion-v2-depth",
    "sdxl": "stable-diffusion-xl-v1-base",
    "sdxl-refiner": "stable-diffusion-xl-v1-refiner",
}
"""The names of the specification; a variant of a family gets its name after a hyphen."""
PREDICTIONS = {"eps": "epsilon", "v": "v"}


def ldm_state(parts: Parts) -> dict[str, Tensor]:
    """Every tensor of a model under its name in a single file; InvalidRequest where the layout has no such model."""
    family = family_named(parts.family)
    if not isinstance(parts.unet, UNet):
        raise InvalidRequest(f"a model of family {parts.family!r} cannot be written as a single file yet")
    _check_schedule(parts, family)
    state = _prefixed(UNET, unet_ldm(parts.unet.config).invert(parts.unet.state_dict()))
    vae = parts.full_vae
    state |= _prefixed(VAE, vae_ldm(vae.config).invert(vae.state_dict()))
    clips = [clip for clip in (parts.clip, parts.clip2) if clip is not None]
    for place, clip in zip(family.texts, clips, strict=True):
        config, weights = _with_all_layers(clip.config, clip.state_dict(), parts.clip_layer - family.clip_layer)
        state |= _prefixed(place.prefix, _text(place, config, weights))
    if parts.prediction == "v" and family.prediction != "v":
        state["v_pred"] = torch.zeros(0)  # how checkpoints of XL say so to other programs
    if _zero_snr(parts):
        state["ztsnr"] = torch.zeros(0)
    return state


def ldm_metadata(parts: Parts, title: str) -> dict[str, str]:
    """`modelspec.*`: what a reader cannot see from the tensors."""
    base = next((name for name in (parts.family, parts.family.partition("-")[0]) if name in ARCHITECTURES), "")
    variant = parts.family.removeprefix(base)
    about = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": ARCHITECTURES.get(base, base) + variant,
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": parts.card.name or title,
        "modelspec.resolution": f"{parts.defaults.width}x{parts.defaults.height}",
        "modelspec.prediction_type": PREDICTIONS.get(parts.prediction, parts.prediction),
    }
    if parts.card.licence:
        about["modelspec.license"] = parts.card.licence
    return about


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def _text(place: TextPlace, config: CLIPTextConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    table = clip_transformers(config) if place.layout == "transformers" else clip_openclip(config)
    return table.invert(weights)


def _with_all_layers(
    config: CLIPTextConfig, weights: Mapping[str, Tensor], lacking: int
) -> tuple[CLIPTextConfig, Mapping[str, Tensor]]:
    """The text encoder with as many layers as readers expect: those that a folder left out are copies of the last.

    Folders of Stable Diffusion 2 end with the layer that is used, the 23rd; single files have the 24th as well, which
    nothing reads.
    """
    if lacking < 0:
        raise InvalidRequest("a single file has no place for a text encoder that is read at another layer")
    last = f"layers.{config.layers - 1}."
    more = {
        f"layers.{config.layers + extra}.{name.removeprefix(last)}": tensor
        for extra in range(lacking)
        for name, tensor in weights.items()
        if name.startswith(last)
    }
    return replace(config, layers=config.layers + lacking), {**weights, **more}


def _check_schedule(parts: Parts, family: Family) -> None:
    """A single file says no more of noise and latents than its family does."""
    expected = ddpm_schedule(zero_terminal_snr=_zero_snr(parts)).to_config()
    if parts.prediction not in PREDICTIONS or parts.schedule.to_config() != expected:  # type: ignore[attr-defined]
        raise InvalidRequest(
            f"a single file cannot say that the noise schedule is {_short(parts.schedule)} and the prediction "
            f"{parts.prediction!r}; write a diffusers folder instead"
        )
    if (parts.latents.scale, parts.latents.shift) != (family.latents.scale, family.latents.shift):
        raise InvalidRequest(
            f"a single file cannot say that latents are scaled by {parts.latents.scale} (its readers take "
            f"{family.latents.scale}); write a diffusers folder instead"
        )


def _zero_snr(parts: Parts) -> bool:
    return bool(parts.schedule.to_config().get("zero_terminal_snr"))  # type: ignore[attr-defined]


def _short(schedule: object) -> str:
    return re.sub(r"\s+", " ", str(schedule.to_config()))[:200]  # type: ignore[attr-defined]
