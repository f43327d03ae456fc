"""A model as one file in the layout of the released checkpoints: names, tensors, and the metadata that describes them.

Metadata follows the Stability AI model specification 1.0 (`modelspec.*`). What such a file has no place for (another
noise schedule, another scale of latents) is an error, because a reader would take the family's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ...diffusion.schedule import EDMSchedule, FlowSchedule, ddpm_schedule
from ...errors import InvalidRequest
from ...models.clip import CLIPText, CLIPTextConfig
from ...models.mmdit import MMDiT
from ..networks.clip import CLIP_LAYOUTS
from ..networks.mmdit import mmdit_ldm
from ..networks.t5 import SECOND_EMBEDDING, t5_transformers
from ..networks.unet import unet_ldm
from ..networks.vae import vae_ldm
from ..parts import Parts
from .edm import edm_state
from .families import SD3_T5, UNET, VAE, Family, TextPlace, family_named
from .few_step import METADATA, few_step_note

ARCHITECTURES = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2-768-v",
    "sd2-base": "stable-diffusion-v2-512",
    "sd1-inpaint": "stable-diffusion-v1-inpainting",
    "sd2-inpaint": "stable-diffusion-v2-inpainting",
    "sd2-depth": "stable-diffusion-v2-depth",
    "sdxl": "stable-diffusion-xl-v1-base",
    "sdxl-refiner": "stable-diffusion-xl-v1-refiner",
    "sd3": "stable-diffusion-v3-medium",
    "sd3.5-medium": "stable-diffusion-v3.5-medium",
    "sd3.5-large": "stable-diffusion-v3.5-large",
}
"""The names of the specification; a variant of a family gets its name after a hyphen."""
PREDICTIONS = {"eps": "epsilon", "v": "v"}


def ldm_state(parts: Parts) -> dict[str, Tensor]:
    """Every tensor of a model under its name in a single file; InvalidRequest where the layout has no such model."""
    family = family_named(parts.family)
    _check_schedule(parts, family)
    network, vae = parts.unet, parts.full_vae
    table = mmdit_ldm(network.config) if isinstance(network, MMDiT) else unet_ldm(network.config)
    state = _prefixed(UNET, table.invert(network.state_dict()))
    state |= _prefixed(VAE, vae_ldm(vae.config).invert(vae.state_dict()))
    clips = [clip for clip in (parts.clip, parts.clip2) if clip is not None]
    for place, clip in zip(family.texts, clips, strict=True):
        state |= _prefixed(place.prefix, _text(place, clip, parts.clip_layer - family.clip_layer, family))
    if parts.t5 is not None:
        t5 = t5_transformers(parts.t5.config).invert(parts.t5.state_dict())
        # Readers that do not tie the two names expect both, as the released files have them.
        state |= _prefixed(SD3_T5, {**t5, SECOND_EMBEDDING: t5["shared.weight"]})
    state |= edm_state(parts)
    if parts.prediction == "v" and family.prediction != "v" and not isinstance(parts.schedule, EDMSchedule):
        state["v_pred"] = torch.zeros(0)  # how checkpoints of XL say so to other programs
    if _zero_snr(parts):
        state["ztsnr"] = torch.zeros(0)
    return state


def ldm_metadata(parts: Parts, title: str) -> dict[str, str]:
    """`modelspec.*`: what a reader cannot see from the tensors."""
    base = next((name for name in (parts.family, parts.family.partition("-")[0]) if name in ARCHITECTURES), "")
    variant = parts.family.removeprefix(base)
    code = "sd3-ref" if isinstance(parts.unet, MMDiT) else "generative-models"
    about = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": ARCHITECTURES.get(base, base) + variant,
        "modelspec.implementation": f"https://github.com/Stability-AI/{code}",
        "modelspec.title": parts.card.name or title,
        "modelspec.resolution": f"{parts.defaults.width}x{parts.defaults.height}",
    }
    if parts.prediction in PREDICTIONS:  # the specification has no word for flow
        about["modelspec.prediction_type"] = PREDICTIONS[parts.prediction]
    if parts.card.licence:
        about["modelspec.license"] = parts.card.licence
    note = few_step_note(parts.defaults)
    if note is not None:
        about[METADATA] = json.dumps(note)
    return about


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def _text(place: TextPlace, clip: CLIPText, lacking: int, family: Family) -> dict[str, Tensor]:
    """A text encoder under the names of its place; `lacking` layers are filled up."""
    if lacking and not family.text_norm:
        raise InvalidRequest(f"a single file has no place for a text encoder that is not read at {family.clip_layer}")
    config, weights = _with_all_layers(clip.config, clip.state_dict(), lacking)
    if family.network == "mmdit" and config.projection_dim is not None and not place.projected:
        config, weights = _without_projection(config, weights)
    return CLIP_LAYOUTS[place.layout].table(config).invert(weights)


def _without_projection(
    config: CLIPTextConfig, weights: Mapping[str, Tensor]
) -> tuple[CLIPTextConfig, dict[str, Tensor]]:
    """Readers take the pooled vector of CLIP-L as it is, so that only a projection that changes nothing may be left."""
    projection = weights["projection.weight"].float()
    if projection.shape[0] != projection.shape[1] or not torch.equal(projection, torch.eye(len(projection))):
        raise InvalidRequest(
            "a single file has no place for the projection of the first text encoder, which is no identity; "
            "write a diffusers folder instead"
        )
    kept = {name: tensor for name, tensor in weights.items() if name != "projection.weight"}
    return replace(config, projection_dim=None), kept


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
    if isinstance(parts.schedule, EDMSchedule):
        edm_state(parts)  # says what it cannot
        if parts.prediction == "edm":
            return  # its latents are in the file
    flow = family.prediction == "flow"
    expected = FlowSchedule(family.shift) if flow else ddpm_schedule(zero_terminal_snr=_zero_snr(parts))
    found = parts.schedule.to_config()  # type: ignore[attr-defined]
    edm = isinstance(parts.schedule, EDMSchedule)
    if not edm and (parts.prediction not in (("flow",) if flow else PREDICTIONS) or found != expected.to_config()):
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
