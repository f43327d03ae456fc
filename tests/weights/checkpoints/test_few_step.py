"""Names and schedulers that say that a model needs a few steps only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.request.names import resolve_sampler, resolve_schedule
from stable_diffusion.weights.checkpoints.families import FAMILIES
from stable_diffusion.weights.checkpoints.few_step import (
    KINDS,
    SCHEDULE,
    few_step_defaults,
    few_step_note,
    noted_defaults,
    scheduler_defaults,
)
from stable_diffusion.weights.parts import Defaults

XL = Defaults(width=1024, height=1024, steps=30, guidance=5.0)


@pytest.mark.parametrize(
    ("name", "steps", "sampler"),
    [
        ("sdxl_lightning_8step", 8, "euler"),
        ("SDXL-Lightning-2steps", 2, "euler"),
        ("dreamshaperXL_v21TurboDPMSDE", 4, "euler_ancestral"),
        ("Hyper-SDXL-1step", 1, "ddim"),
        ("LCM_Dreamshaper_v7", 4, "lcm"),
        ("TCD-SDXL", 4, "tcd"),
    ],
)
def test_names_that_say_so(name: str, steps: int, sampler: str) -> None:
    made, guesses = few_step_defaults(XL, "", name)
    schedule = "lcm" if sampler in ("lcm", "tcd") else SCHEDULE
    assert (made.steps, made.sampler, made.guidance, made.schedule) == (steps, sampler, 1.0, schedule)
    assert made.width == 1024 and name in guesses[0] and f"{steps} steps" in guesses[0]


@pytest.mark.parametrize("name", ["sd_xl_base_1.0", "turbocharged", "calcmath", "20 steps of winter", ""])
def test_names_that_do_not(name: str) -> None:
    assert few_step_defaults(XL, name) == (XL, ())


def test_the_released_turbo_is_half_as_large() -> None:
    made, _ = few_step_defaults(XL, "sd_xl_turbo_1.0_fp16")
    assert (made.width, made.height, made.steps) == (512, 512, 4)


def test_a_flow_model_keeps_its_sampler() -> None:
    large = FAMILIES["sd3.5-large"].defaults
    made, guesses = few_step_defaults(large, "sd3.5_large_turbo", flow=True)
    assert (made.steps, made.guidance, made.sampler, made.schedule) == (4, 1.0, "euler", "normal") and guesses


@pytest.mark.parametrize(
    ("scheduler", "kind"),
    [
        ({"_class_name": "LCMScheduler", "original_inference_steps": 50}, "lcm"),
        ({"_class_name": "LCMScheduler", "original_inference_steps": 1000, "num_train_timesteps": 1000}, "dmd2"),
        ({"_class_name": "TCDScheduler"}, "tcd"),
        ({"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}, "turbo"),
    ],
)
def test_schedulers_of_few_steps(scheduler: dict[str, Any], kind: str) -> None:
    made, asked = scheduler_defaults(XL, scheduler, "mine"), KINDS[kind]
    expected = replace(XL, steps=asked.steps, guidance=1.0, sampler=asked.sampler, schedule=asked.schedule)
    assert made == (expected, ())
    named = scheduler_defaults(XL, scheduler, "Hyper-SDXL-1step")
    assert named is not None and named[0] == replace(expected, steps=1) and "1 steps" in named[1][0]


@pytest.mark.parametrize(
    "scheduler",
    [
        {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
        {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"},
        {"_class_name": "EulerAncestralDiscreteScheduler"},
        {
            "_class_name": "EulerAncestralDiscreteScheduler",
            "timestep_spacing": "trailing",
            "rescale_betas_zero_snr": True,
        },
    ],
)
def test_schedulers_of_many_steps(scheduler: dict[str, Any]) -> None:
    assert scheduler_defaults(XL, scheduler, "1step") is None


def test_notes() -> None:
    assert few_step_note(XL) is None and noted_defaults(XL, None) is None
    quick = replace(XL, steps=2, guidance=1.0, sampler="tcd", width=512)
    assert noted_defaults(XL, few_step_note(quick)) == quick
    assert noted_defaults(XL, {"steps": 3, "more": 1}) == replace(XL, steps=3)


@pytest.mark.parametrize("note", [3, {"steps": "many"}, {"sampler": "none"}, {"schedule": "none"}, {"guidance": "x"}])
def test_a_note_that_nobody_wrote_is_refused(note: Any) -> None:
    with pytest.raises(InvalidRequest):
        noted_defaults(XL, note)


def test_every_kind_names_a_sampler_and_schedule_that_exist() -> None:
    for kind in KINDS.values():
        assert resolve_sampler(kind.sampler).id == kind.sampler
        assert resolve_schedule(kind.schedule, "normal") == kind.schedule
