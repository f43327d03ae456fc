"""The noise schedule and prediction of a model as diffusers writes them in `scheduler_config.json`, both ways.

Which sampler a scheduler names does not matter when it is read, but for models of few steps (see `few_step`). Source:
the documented configuration fields of diffusers' schedulers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...diffusion.prediction import Prediction, resolve_prediction
from ...diffusion.schedule import DiscreteSchedule, FlowSchedule, ddpm_schedule, rescale_zero_terminal_snr
from ...errors import BrokenModel, InvalidRequest
from ..containers.limits import using_config
from ..networks.words import VERSION, Fixed, Words, check_fixed
from ..parts import Parts
from .edm import edm_from_words, edm_to_words
from .few_step import NOTE, few_step_note, is_few_step

BETAS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
"""Kind of noise schedule -> diffusers' word for it."""
PREDICTIONS: dict[Prediction, str] = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
FEW_STEPS = {
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",
    "ddim": "DDIMScheduler",
    "tcd": "TCDScheduler",
}
"""Schedulers of models distilled to a few steps, by the sampler that they are run with."""
FLOW_FIXED: Fixed = {"use_dynamic_shifting": (False,), "shift_terminal": (None,)}
"""Settings of flow schedules that Stable Diffusion 3 does not use."""


def schedule_from_words(words: Words, where: Path) -> tuple[DiscreteSchedule | FlowSchedule, Prediction]:
    """`scheduler_config.json` -> noise schedule and prediction; ModelFileError names a setting that we do not have."""
    with using_config(where):
        kind = str(words.get("_class_name", ""))
        if kind.startswith("EDM"):
            return edm_from_words(words, where)
        if "FlowMatch" in kind:
            check_fixed(words, FLOW_FIXED, where)
            return FlowSchedule(words.get("shift", 1.0), words.get("num_train_timesteps", 1000)), "flow"
        prediction = resolve_prediction(words.get("prediction_type", "epsilon"))
        zero_snr = bool(words.get("rescale_betas_zero_snr", False))
        if words.get("trained_betas") is not None:
            abar = torch.cumprod(1 - torch.tensor(words["trained_betas"], dtype=torch.float64), dim=0)
            return DiscreteSchedule(rescale_zero_terminal_snr(abar) if zero_snr else abar), prediction
        ours = {theirs: ours for ours, theirs in BETAS.items()}
        betas = words.get("beta_schedule", "linear")
        if betas not in ours:
            raise BrokenModel(f"{where} has beta_schedule {betas!r}; known are {', '.join(ours)}")
        schedule = ddpm_schedule(
            ours[betas],  # type: ignore[arg-type]
            beta_start=words.get("beta_start", 0.0001),
            beta_end=words.get("beta_end", 0.02),
            steps=words.get("num_train_timesteps", 1000),
            zero_terminal_snr=zero_snr,
        )
        return schedule, prediction


def schedule_to_words(parts: Parts) -> dict[str, Any]:
    """`scheduler_config.json`: the noise schedule and prediction of a model, and how it is sampled best.

    InvalidRequest where diffusers has no words for its noise schedule.
    """
    ours = parts.schedule.to_config()  # type: ignore[attr-defined]  # of our own schedules
    if ours.get("kind") == "edm":
        return with_note(edm_to_words(ours, parts), parts)
    if ours.get("kind") == "flow" and parts.prediction == "flow":
        return with_note(_flow_words(ours), parts)
    if ours.get("kind") not in BETAS or parts.prediction not in PREDICTIONS:
        raise InvalidRequest(
            f"a noise schedule of kind {ours.get('kind')!r} cannot be written as a diffusers scheduler"
        )
    zero = bool(ours["zero_terminal_snr"])
    name, spacing = _scheduler(parts, zero)
    words: dict[str, Any] = {
        "_class_name": name,
        "_diffusers_version": VERSION,
        "beta_schedule": BETAS[ours["kind"]],
        "beta_start": ours["beta_start"],
        "beta_end": ours["beta_end"],
        "num_train_timesteps": ours["steps"],
        "prediction_type": PREDICTIONS[parts.prediction],
        "timestep_spacing": spacing,
        "steps_offset": 1,
    }
    if zero:
        words["rescale_betas_zero_snr"] = True
    if name in ("PNDMScheduler", "DDIMScheduler"):
        words["set_alpha_to_one"] = is_few_step(parts.defaults)  # a step of few ends without noise
    if name == "LCMScheduler" and parts.defaults.schedule != "lcm":
        words["original_inference_steps"] = ours["steps"]  # so that its timesteps are the trailing ones
    if name in ("DDIMScheduler", "LCMScheduler", "TCDScheduler"):
        words["clip_sample"] = False
    if name == "PNDMScheduler":
        words["skip_prk_steps"] = True
    _check(parts.schedule.sigma_max, parts.prediction, words)
    return with_note(words, parts)


def with_note(words: dict[str, Any], parts: Parts) -> dict[str, Any]:
    """A scheduler_config.json that also says how a model of few steps is run, which no scheduler's fields can."""
    note = few_step_note(parts.defaults)
    return words if note is None else {**words, NOTE: note}


def _flow_words(ours: dict[str, Any]) -> dict[str, Any]:
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": ours["timesteps"],
        "shift": ours["shift"],
        "use_dynamic_shifting": False,
    }


def _scheduler(parts: Parts, zero: bool) -> tuple[str, str]:
    """(class, spacing of timesteps): those of the released folders of each family."""
    if is_few_step(parts.defaults):
        return FEW_STEPS.get(parts.defaults.sampler, "EulerDiscreteScheduler"), "trailing"
    if parts.size_numbers or zero:
        return "EulerDiscreteScheduler", "trailing" if zero else "leading"
    return ("DDIMScheduler" if parts.prediction == "v" else "PNDMScheduler"), "leading"


def _check(sigma_max: float, prediction: Prediction, words: dict[str, Any]) -> None:
    """What is written is read back: a schedule that comes out as another one is an error."""
    try:
        schedule, read = schedule_from_words(words, Path("scheduler/scheduler_config.json"))
    except BrokenModel as error:
        raise InvalidRequest(f"the noise schedule cannot be written as a diffusers scheduler: {error}") from error
    assert read == prediction and abs(schedule.sigma_max - sigma_max) <= 1e-9 * sigma_max
