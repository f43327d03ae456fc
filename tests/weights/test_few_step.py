"""Names and schedulers that say that a model needs a few steps only."""

from __future__ import annotations

import pytest

from stable_diffusion.diffusion.samplers import resolve_sampler
from stable_diffusion.diffusion.sigmas import resolve_schedule
from stable_diffusion.weights.families import FAMILIES
from stable_diffusion.weights.few_step import KINDS, SCHEDULE, few_step_defaults, scheduler_defaults
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
    ],
)
def test_names_that_say_so(name: str, steps: int, sampler: str) -> None:
    made, guesses = few_step_defaults(XL, "", name)
    schedule = "lcm" if sampler == "lcm" else SCHEDULE
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


def test_schedulers() -> None:
    assert scheduler_defaults(XL, {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}) is None
    assert scheduler_defaults(XL, {"_class_name": "EulerAncestralDiscreteScheduler"}) is None
    made = scheduler_defaults(XL, {"_class_name": "LCMScheduler"})
    assert made is not None and (made.steps, made.guidance, made.sampler) == (4, 1.0, "lcm")


def test_every_kind_names_a_sampler_and_schedule_that_exist() -> None:
    for kind in KINDS.values():
        assert resolve_sampler(kind.sampler).sampler.id == kind.sampler
        assert resolve_schedule(kind.schedule, "normal") == kind.schedule
