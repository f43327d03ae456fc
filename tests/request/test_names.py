"""Names of samplers and noise schedules, in the spellings of A1111, k-diffusion and diffusers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stable_diffusion.diffusion.samplers import SOLVERS
from stable_diffusion.diffusion.sigmas import GRIDS
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.request.names import SAMPLERS, SCHEDULES, automatic_schedule, resolve_sampler, resolve_schedule


def test_every_name_has_its_mathematics_and_the_other_way_round() -> None:
    assert set(SAMPLERS) == set(SOLVERS) and set(SCHEDULES) == set(GRIDS)
    for name in SAMPLERS.values():
        assert name.schedule in SCHEDULES
        for options in name.presets.values():
            assert set(options) <= set(SOLVERS[name.id].options)


def test_no_two_are_called_the_same() -> None:
    for names in (SAMPLERS.values(), SCHEDULES.values()):
        labels = [name.label for name in names]
        assert len(set(labels)) == len(labels)
    for name in SAMPLERS.values():
        for spelling in (name.id, name.label, *name.aliases, *name.presets):
            assert resolve_sampler(spelling).id == name.id
    for schedule in SCHEDULES.values():
        for spelling in (schedule.id, schedule.label, *schedule.aliases):
            assert resolve_schedule(spelling) == schedule.id


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_id_and_label_is_its_own_name(name: str) -> None:
    info = SAMPLERS[name]
    for spelling in (name, info.label, info.label.upper(), f"k_{name}", f"  {name} ", *info.aliases):
        assert resolve_sampler(spelling) == (name, None, {})


@pytest.mark.parametrize(
    ("given", "sampler", "schedule", "options"),
    [
        ("DPM++ 2M Karras", "dpmpp_2m", "karras", {}),
        ("dpm++ 2m karras", "dpmpp_2m", "karras", {}),
        ("Euler a", "euler_ancestral", None, {}),
        ("euler_a", "euler_ancestral", None, {}),
        ("k_euler_a", "euler_ancestral", None, {}),
        ("k_dpm_2_a", "dpm_2_ancestral", None, {}),
        ("DPM2 a Karras", "dpm_2_ancestral", "karras", {}),
        ("LMS Karras", "lms", "karras", {}),
        ("k_dpmpp_2m_ka", "dpmpp_2m", "karras", {}),
        ("k_dpmpp_2s_a", "dpmpp_2s_ancestral", None, {}),
        ("DPM++ 2M SDE Karras", "dpmpp_2m_sde", "karras", {}),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "exponential", {}),
        ("DPM++ 2M SDE Heun", "dpmpp_2m_sde", None, {"solver": "heun"}),
        ("DPM++ 2M SDE Heun Karras", "dpmpp_2m_sde", "karras", {"solver": "heun"}),
        ("DPM++ 2M SDE Heun Exponential", "dpmpp_2m_sde", "exponential", {"solver": "heun"}),
        ("dpmpp_2m_sde_heun", "dpmpp_2m_sde", None, {"solver": "heun"}),
        ("DPM++ 3M SDE", "dpmpp_3m_sde", None, {}),
        ("DPM++ SDE Karras", "dpmpp_sde", "karras", {}),
        ("Euler SGM Uniform", "euler", "sgm_uniform", {}),
        ("DPM++ 2M Align Your Steps", "dpmpp_2m", "ays", {}),
        ("DPM++ 2M SDE Automatic", "dpmpp_2m_sde", "exponential", {}),
        ("uni_pc_bh2", "uni_pc", None, {"variant": "bh2"}),
        ("PNDM", "plms", None, {}),
        ("DPM fast", "dpm_fast", None, {}),
        ("k_dpm_ad", "dpm_adaptive", None, {}),
        ("DPM adaptive Karras", "dpm_adaptive", "karras", {}),
        ("Restart", "restart", None, {}),
        ("Restart Automatic", "restart", "karras", {}),
        ("Euler CFG++", "euler_cfg_pp", None, {}),
        ("Euler a CFG++", "euler_ancestral_cfg_pp", None, {}),
        ("DDIM CFG++", "ddim_cfg_pp", None, {}),
        ("IPNDM_V", "lms", None, {}),
        ("RES multistep", "res_multistep", None, {}),
        ("SA-Solver", "sa_solver", None, {}),
        ("ER-SDE", "er_sde", None, {}),
        ("sample_dpmpp_2m_sde", "dpmpp_2m_sde", None, {}),
        ("DPM++ 2S", "dpmpp_2s_ancestral", None, {"eta": 0.0}),
        ("FlowMatchHeunDiscreteScheduler", "heun", None, {}),
        ("DPM++ 2M Align Your Steps GITS", "dpmpp_2m", "gits", {}),
        ("DPM++ 2M Polyexponential", "dpmpp_2m", "polyexponential", {}),
        ("Euler Linear-quadratic", "euler", "linear_quadratic", {}),
    ],
)
def test_names_of_samplers(given: str, sampler: str, schedule: str | None, options: dict[str, Any]) -> None:
    assert resolve_sampler(given) == (sampler, schedule, options)


def test_automatic_follows_a1111() -> None:
    found = {name: automatic_schedule(name, flow=False) for name in SAMPLERS}
    karras = {"dpmpp_2m", "dpmpp_sde", "dpmpp_2s_ancestral", "dpm_2", "dpm_2_ancestral", "restart"}
    assert {name for name, schedule in found.items() if schedule == "karras"} == karras
    assert {name for name, schedule in found.items() if schedule == "exponential"} == {"dpmpp_2m_sde", "dpmpp_3m_sde"}
    assert found["euler"] == found["heun"] == found["lms"] == "normal"
    assert found["ddim"] == found["plms"] == found["uni_pc"] == "ddim_uniform"
    assert {automatic_schedule(name, flow=True) for name in SAMPLERS} == {"sgm_uniform"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Karras", "karras"),
        ("SGM Uniform", "sgm_uniform"),
        ("sgm-uniform", "sgm_uniform"),
        ("Uniform", "normal"),
        ("NORMAL", "normal"),
        ("DDIM uniform", "ddim_uniform"),
        ("ddim", "ddim_uniform"),
        ("KL Optimal", "kl_optimal"),
        ("Align Your Steps", "ays"),
        ("Turbo", "sgm_uniform"),
        ("GITS", "gits"),
        ("Align Your Steps GITS", "gits"),
        ("Polyexponential", "polyexponential"),
        ("Linear-quadratic", "linear_quadratic"),
        ("Beta", "beta"),
        ("Automatic", "exponential"),
        (None, "exponential"),
    ],
)
def test_names_of_schedules(given: str | None, expected: str) -> None:
    assert resolve_schedule(given, automatic="exponential") == expected


@pytest.mark.parametrize("name", ["DPM++ 2N Karras", "", "Karras"])
def test_unknown_samplers(name: str) -> None:
    with pytest.raises(InvalidRequest, match="unknown sampler '" + re.escape(name)):
        resolve_sampler(name)


def test_unknown_names_have_the_nearest_one() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'euler'"):
        resolve_sampler("eular")
    with pytest.raises(InvalidRequest, match="did you mean 'karras'"):
        resolve_schedule("karas")
    with pytest.raises(InvalidRequest, match="automatic"):
        resolve_schedule("")
