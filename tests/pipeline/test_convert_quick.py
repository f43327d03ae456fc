"""Models of few steps written anew: how they are run is told in both forms, to us and to diffusers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_checkpoints as tiny
import tiny_xl as xl
from convert_cases import Case, make_case
from stable_diffusion.convert import convert
from stable_diffusion.diffusion.sigmas import schedule_sigmas
from stable_diffusion.errors import BrokenModel
from stable_diffusion.weights.checkpoints.few_step import KINDS, METADATA, NOTE
from stable_diffusion.weights.describe import inspect
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.parts import Defaults

SCHEDULERS = {
    "turbo": "EulerAncestralDiscreteScheduler",
    "lightning": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",
    "tcd": "TCDScheduler",
    "hyper": "DDIMScheduler",
    "dmd2": "LCMScheduler",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(xl.BASE, tmp_path_factory.mktemp("base"))


def named(base: Case, place: Path, name: str) -> Path:
    return Path(shutil.copy(base.single, place / f"{name}.safetensors"))


def defaults_of(path: Path) -> Defaults:
    """What `load` and `info` say, which is the same, with nothing left to guess."""
    parts, found = load_parts(path), inspect(path, hashes=False)
    told = parts.defaults
    assert (found["steps"], found["guidance"], found["sampler"], found["width"]) == (
        told.steps, told.guidance, told.sampler, told.width,
    )  # fmt: skip
    assert not [guess for guess in (*parts.guesses, *found["guesses"]) if "step" in guess]
    return told


def scheduler_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "scheduler" / "scheduler_config.json").read_text()))


@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_stays_what_it_was(base: Case, kind: str, steps: int | None, tmp_path: Path) -> None:
    single = named(base, tmp_path, f"xl_{kind}" if steps is None else f"xl_{kind}_{steps}step")
    told = KINDS[kind]
    before = load_parts(single).defaults
    expected = (told.steps if steps is None else steps, 1.0, told.sampler, told.schedule)
    assert (before.steps, before.guidance, before.sampler, before.schedule) == expected
    for name in ("a", "b.safetensors", "c.safetensors", "d", "e"):  # from one file, folder, file, file, folder
        single = convert(single, tmp_path / name).path
        assert defaults_of(single) == before, name
    assert scheduler_of(tmp_path / "a")["_class_name"] == SCHEDULERS[kind]
    assert scheduler_of(tmp_path / "a") == scheduler_of(tmp_path / "d") == scheduler_of(tmp_path / "e")


@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_takes_the_same_timesteps(
    base: Case, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    convert(named(base, tmp_path, f"xl_{kind}"), tmp_path / "folder")
    told, schedule = KINDS[kind], load_parts(tmp_path / "folder").schedule
    capfd.readouterr()
    scheduler = getattr(diffusers, SCHEDULERS[kind]).from_pretrained(tmp_path / "folder", subfolder="scheduler")
    assert "ignored" not in capfd.readouterr().err  # which diffusers says of fields that it does not know
    scheduler.set_timesteps(told.steps)
    ours = schedule.timestep(schedule_sigmas(told.schedule, schedule, told.steps)[:-1])
    assert torch.allclose(scheduler.timesteps.double(), ours.double(), atol=0.01), (scheduler.timesteps, ours)


@pytest.mark.parametrize(("scheduler", "kind"), [("TCDScheduler", "tcd"), ("LCMScheduler", "lcm")])
def test_a_scheduler_of_another_tool_is_enough(base: Case, scheduler: str, kind: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base.folder, tmp_path / "mine"))
    shutil.rmtree(folder / "scheduler")
    getattr(diffusers, scheduler)(**xl.NOISE).save_pretrained(folder / "scheduler")
    assert NOTE not in scheduler_of(folder)
    made, told = defaults_of(folder), KINDS[kind]
    assert (made.steps, made.sampler, made.schedule, made.guidance) == (told.steps, told.sampler, told.schedule, 1.0)
    for name in ("a.safetensors", "b", "c"):
        folder = convert(folder, tmp_path / name).path
        assert defaults_of(folder) == made
    assert scheduler_of(tmp_path / "c")["_class_name"] == scheduler


def test_a_model_of_many_steps_gets_no_note(base: Case, tmp_path: Path) -> None:
    convert(base.single, tmp_path / "folder")
    convert(base.folder, tmp_path / "b.safetensors")
    assert NOTE not in scheduler_of(tmp_path / "folder")
    assert METADATA not in inspect(tmp_path / "b.safetensors", hashes=False)["metadata"]
    assert load_parts(tmp_path / "folder").defaults.steps > 16


def test_a_model_that_is_told_its_guidance_keeps_it(tmp_path: Path) -> None:
    told = replace(tiny.SD1, unet={**tiny.SD1.unet, "time_cond_proj_dim": 16})
    folder = Path(shutil.move(tiny.write_folder(told, tmp_path / "made"), tmp_path / "lcm_2steps"))
    before = load_parts(folder).defaults
    assert (before.steps, before.guidance) == (2, 8.5)
    for name in ("a", "b.safetensors", "c"):
        folder = convert(folder, tmp_path / name).path
        assert defaults_of(folder) == before


@pytest.mark.parametrize("note", ["[", '{"steps": "many"}', '{"width": 10e9}', "[" * 100_000, '{"sampler": "none"}'])
def test_a_broken_note_is_one_sentence(base: Case, note: str, tmp_path: Path) -> None:
    save_file(load_file(base.single), tmp_path / "a.safetensors", {"format": "pt", METADATA: note})
    with pytest.raises(BrokenModel, match=r"a\.safetensors"):
        load_parts(tmp_path / "a.safetensors")
