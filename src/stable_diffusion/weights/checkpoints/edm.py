"""Models with the continuous noise levels of Karras et al. 2022 (EDM): their marks in single files, diffusers' words.

Two kinds are released. Playground 2.5 (Li et al. 2024, arXiv:2402.17245) predicts `edm` with sigma_data 0.5 and has
latents normalised for each channel; its single file holds their means and deviations, `edm_mean` and `edm_std`. CosXL
and its edit form predict `v` with sigma_data 1 up to a level of their own; their files hold `edm_vpred.sigma_max` and,
mostly, `edm_vpred.sigma_min`. The same marks are read by ComfyUI (comfy/supported_models.py) and by the single-file
loader of diffusers (loaders/single_file_utils.py); the words are the fields of diffusers' EDMEulerScheduler and
EDMDPMSolverMultistepScheduler.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...diffusion.prediction import Prediction
from ...diffusion.schedule import EDMSchedule
from ...errors import BrokenModel, InvalidRequest
from ...latents import LatentFormat
from ...models.vae import VAEConfig
from ..containers.limits import using_config
from ..containers.tensors import TensorFile
from ..networks.vae import NORMALISED, normalised_latents
from ..networks.words import VERSION, Fixed, Words, check_fixed
from ..parts import Defaults

if TYPE_CHECKING:
    from ...types import Schedule
    from ..parts import Parts

MEAN, STD = "edm_mean", "edm_std"
HIGHEST, LOWEST = "edm_vpred.sigma_max", "edm_vpred.sigma_min"
LOWEST_LEVEL, HIGHEST_LEVEL = 0.002, 80.0
EDM_DATA, V_DATA = 0.5, 1.0
"""sigma_data of the two kinds."""
GUIDANCE = 3.0
"""Of Playground 2.5, as its model card has it."""
PREDICTIONS: dict[Prediction, str] = {"edm": "epsilon", "v": "v_prediction"}
SAMPLERS = {"EDMEulerScheduler": "euler", "EDMDPMSolverMultistepScheduler": "dpmpp_2m"}
SPACINGS = ("karras", "exponential")
EDM_FIXED: Fixed = {
    "rho": (7.0,),
    "final_sigmas_type": ("zero",),
    "solver_order": (2,),
    "thresholding": (False,),
    "algorithm_type": ("dpmsolver++",),
    "solver_type": ("midpoint",),
}
"""Settings of these schedulers that are run as the released folders have them."""


# --- single files ----------------------------------------------------------------------------------------------------


def edm_kind(names: Collection[str]) -> Prediction | None:
    """What the network of a single file predicts by the marks of EDM models; None where it has none."""
    if MEAN in names and STD in names:
        return "edm"
    return "v" if HIGHEST in names else None


def edm_schedule(tensors: TensorFile, prediction: Prediction) -> EDMSchedule | None:
    """The noise levels of a single file with marks of EDM, or of one that is said to predict `edm`; None for others.

    BrokenModel where the file's own levels are no sensible numbers.
    """
    kind = edm_kind(tensors)
    if kind == "v":
        lowest = _number(tensors, LOWEST) if LOWEST in tensors else LOWEST_LEVEL
        with using_config(tensors.path):
            return EDMSchedule(lowest, _number(tensors, HIGHEST), V_DATA)
    return EDMSchedule(LOWEST_LEVEL, HIGHEST_LEVEL, EDM_DATA) if "edm" in (kind, prediction) else None


def edm_latents(tensors: TensorFile, vae: VAEConfig) -> LatentFormat | None:
    """The latent space of a single file that has means and deviations of its own; None for others."""
    if edm_kind(tensors) != "edm":
        return None
    with using_config(tensors.path):
        mean, std = (tensors[name].float().reshape(-1).tolist() for name in (MEAN, STD))
        return normalised_latents(mean, std, NORMALISED, vae.latent_channels, vae.downscale)


def edm_defaults(defaults: Defaults, schedule: Schedule) -> Defaults:
    """The settings of the released models with these noise levels; `defaults` for all others."""
    if not isinstance(schedule, EDMSchedule):
        return defaults
    if schedule.sigma_data == EDM_DATA:
        return replace(defaults, guidance=GUIDANCE, sampler="dpmpp_2m", schedule="karras")
    return replace(defaults, sampler="euler", schedule="exponential")


def edm_state(parts: Parts) -> dict[str, Tensor]:
    """The marks of a model in a single file; nothing for models of other noise levels.

    InvalidRequest where a single file has no words for these levels.
    """
    schedule, latents = parts.schedule, parts.latents
    if not isinstance(schedule, EDMSchedule):
        return {}
    if parts.prediction == "v" and schedule.sigma_data == V_DATA:
        return {HIGHEST: torch.tensor(schedule.sigma_max), LOWEST: torch.tensor(schedule.sigma_min)}
    levels = (schedule.sigma_min, schedule.sigma_max, schedule.sigma_data)
    if parts.prediction != "edm" or levels != (LOWEST_LEVEL, HIGHEST_LEVEL, EDM_DATA):
        raise InvalidRequest(
            f"a single file cannot say that noise levels go from {levels[0]:g} to {levels[1]:g} with data of spread "
            f"{levels[2]:g} and prediction {parts.prediction!r}; write a diffusers folder instead"
        )
    if not isinstance(latents.scale, tuple) or not isinstance(latents.shift, tuple):
        raise InvalidRequest("a single file of this kind needs a mean and deviation for each channel of latents")
    stds = [NORMALISED / scale for scale in latents.scale]
    return {MEAN: torch.tensor(latents.shift).reshape(1, -1, 1, 1), STD: torch.tensor(stds).reshape(1, -1, 1, 1)}


def _number(tensors: TensorFile, name: str) -> float:
    if tensors.info(name).count != 1:
        raise BrokenModel(f"{tensors.path}: {name} has {tensors.info(name).count} elements; expected 1")
    value = float(tensors[name])
    return round(value, 6) if value < 1 else value  # 0.002 and its like, out of float32


# --- diffusers' words ------------------------------------------------------------------------------------------------


def edm_from_words(words: Words, where: Path) -> tuple[EDMSchedule, Prediction]:
    """`scheduler_config.json` of an EDM scheduler; BrokenModel names a setting that we do not have."""
    check_fixed(words, EDM_FIXED, where)
    theirs = str(words.get("prediction_type", "epsilon"))
    prediction = next((ours for ours, name in PREDICTIONS.items() if name == theirs), None)
    if prediction is None:
        raise BrokenModel(f"{where} has prediction_type {theirs[:80]!r}; known are {', '.join(PREDICTIONS.values())}")
    if words.get("sigma_schedule", "karras") not in SPACINGS:
        raise BrokenModel(
            f"{where} has sigma_schedule {str(words['sigma_schedule'])[:80]!r}; known are {', '.join(SPACINGS)}"
        )
    given = {name: words[name] for name in ("sigma_min", "sigma_max", "sigma_data") if words.get(name) is not None}
    levels = {"sigma_min": LOWEST_LEVEL, "sigma_max": HIGHEST_LEVEL, "sigma_data": EDM_DATA, **given}
    return EDMSchedule(**levels, timesteps=words.get("num_train_timesteps", 1000)), prediction


def scheduled_defaults(defaults: Defaults, words: Words) -> Defaults:
    """The sampler and spacing that an EDM scheduler names; `defaults` for all others."""
    sampler = SAMPLERS.get(str(words.get("_class_name", "")))
    if sampler is None:
        return defaults
    guidance = GUIDANCE if words.get("sigma_data", EDM_DATA) == EDM_DATA else defaults.guidance
    return replace(defaults, guidance=guidance, sampler=sampler, schedule=str(words.get("sigma_schedule", "karras")))


def edm_to_words(ours: dict[str, Any], parts: Parts) -> dict[str, Any]:
    """`scheduler_config.json` of a model with these noise levels. InvalidRequest for other predictions."""
    if parts.prediction not in PREDICTIONS:
        raise InvalidRequest(f"a diffusers scheduler has no word for EDM noise levels and {parts.prediction!r}")
    names = {sampler: name for name, sampler in SAMPLERS.items()}
    defaults = parts.defaults
    return {
        "_class_name": names.get(defaults.sampler, "EDMEulerScheduler"),
        "_diffusers_version": VERSION,
        "sigma_min": ours["sigma_min"],
        "sigma_max": ours["sigma_max"],
        "sigma_data": ours["sigma_data"],
        "sigma_schedule": defaults.schedule if defaults.schedule in SPACINGS else "karras",
        "num_train_timesteps": ours["timesteps"],
        "prediction_type": PREDICTIONS[parts.prediction],
        "rho": 7.0,
        "final_sigmas_type": "zero",
    }
