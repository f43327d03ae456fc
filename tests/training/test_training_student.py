"""The few-step student: its jumps, its memory of the teacher, its file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_training import settings

from stable_diffusion.adapters.attach import attach
from stable_diffusion.adapters.file import read_adapter
from stable_diffusion.adapters.targets import networks
from stable_diffusion.diffusion.schedule import FlowSchedule, ddpm_schedule
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.training.checkpoint import load_part
from stable_diffusion.training.export import join
from stable_diffusion.training.run import train
from stable_diffusion.training.stages.low_rank import add_low_rank
from stable_diffusion.training.stages.student import arrival
from stable_diffusion.training.stages.student_file import save_student
from stable_diffusion.training.stages.trajectories import follow, places, remembered
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.containers.hashes import sha256
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.parts import Defaults

STUDENT = {"jumps": 2, "between": 2, "ways": 40, "rank": 4, "batch_size": 8, "guidance": 2.0, "ema": 0.0}


@pytest.fixture(scope="module")
def teacher(pack_folder: Path, runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose guidance matters: the tiny run's last layer is still almost zero."""
    out = tmp_path_factory.mktemp("teacher") / "m.safetensors"
    parts = join(runs["denoiser"], tokenizer=pack_folder)
    torch.manual_seed(0)
    torch.nn.init.normal_(parts.unet.conv_out.weight, std=0.3)
    save_native(out, parts, dtype="float32")
    return out


def distil(pack: Path, out: Path, teacher: Path, **more: object) -> dict[str, float]:
    given = settings("student", {}, **STUDENT) | {"teacher": str(teacher)} | more
    return train("student", data=pack, out=out, overrides=given, device="cpu")


@pytest.mark.parametrize("schedule", [FlowSchedule(2.0), ddpm_schedule("scaled_linear")])
def test_the_arrival_is_where_one_euler_step_ends(schedule: object) -> None:
    sigmas = places(schedule, 3)  # type: ignore[arg-type]
    assert len(sigmas) == 4 and sigmas[-1] == 0 and (sigmas[:-1] > sigmas[1:]).all()
    assert sigmas[0] == pytest.approx(schedule.sigma_max)  # type: ignore[attr-defined]
    here, there = torch.randn(2, 3, 1, 4, 4)
    x0 = arrival(here, there, sigmas[:3], sigmas[1:], schedule)
    alpha, then = (schedule.alpha(s).view(-1, 1, 1, 1) for s in (sigmas[:3], sigmas[1:]))  # type: ignore[attr-defined]
    noise = (here - alpha * x0) / sigmas[:3].view(-1, 1, 1, 1)
    torch.testing.assert_close(then * x0 + sigmas[1:].view(-1, 1, 1, 1) * noise, there, rtol=1e-4, atol=1e-4)


def test_a_teacher_that_knows_the_picture_ends_there() -> None:
    schedule, picture = FlowSchedule(), torch.randn(2, 3, 4, 4)
    noise = torch.randn(2, 3, 4, 4)
    states = follow(lambda x, sigma: picture, noise, schedule, jumps=4, between=3)
    assert states.shape == (2, 5, 3, 4, 4) and torch.equal(states[:, 0], noise)
    torch.testing.assert_close(states[:, -1], picture)
    for state, sigma in zip(states.unbind(1), places(schedule, 4), strict=True):
        torch.testing.assert_close(state, (1 - sigma) * picture + sigma * noise, rtol=1e-4, atol=1e-4)


def test_ways_are_painted_once(tmp_path: Path) -> None:
    asked: list[int] = []

    def make(numbers: range) -> torch.Tensor:
        asked.append(numbers.start)
        return torch.full((16, 2, 1, 1, 1), float(numbers.start))

    first = remembered(tmp_path, 20, (2, 1, 1, 1), make)
    (tmp_path / "000016.npy").unlink()
    assert torch.equal(remembered(tmp_path, 20, (2, 1, 1, 1), make), first) and len(first) == 20
    assert asked == [0, 16, 16]
    with pytest.raises(InvalidRequest, match="remove the folder"):
        remembered(tmp_path, 20, (3, 1, 1, 1), make)


def test_a_student_learns_and_its_file_is_a_lora(pack_folder: Path, teacher: Path, tmp_path: Path) -> None:
    begun = distil(pack_folder, tmp_path / "a", teacher, steps=1, **{"optimiser.learning_rate": 0.0})
    ended = distil(pack_folder, tmp_path / "b", teacher, steps=60, **{"optimiser.learning_rate": 0.01})
    assert ended["heldout_loss"] < 0.9 * begun["heldout_loss"]
    file = save_student(tmp_path / "b", tmp_path / "student.safetensors", dtype=torch.float32)

    plain, changed = load_parts(teacher).unet, load_parts(teacher).unet
    weights = load_part(tmp_path / "b", "lora")[0]
    add_low_rank(changed, 4).load_state_dict(weights)
    x, t = torch.randn(1, 3, 4, 4), torch.tensor([500.0])
    tokens, vector = torch.randn(1, 5, 16), torch.randn(1, 16)
    parts = load_parts(teacher)
    with torch.no_grad():
        expected = changed(x, t, tokens, vector=vector)
        before = parts.unet(x, t, tokens, vector=vector)
        with attach(networks(parts.unet, parts.clip, None, None), file):
            found = parts.unet(x, t, tokens, vector=vector)
    assert torch.equal(before, plain(x, t, tokens, vector=vector)) and not torch.allclose(expected, before)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_student_within_a_budget_of_numbers(pack_folder: Path, teacher: Path, tmp_path: Path) -> None:
    """In 8 bits and with room for everything its changes are those of the run, within the precision of the bits."""
    distil(pack_folder, tmp_path / "run", teacher, steps=30, **{"optimiser.learning_rate": 0.01})
    whole = save_student(tmp_path / "run", tmp_path / "whole.safetensors", dtype=torch.float32)
    small = save_student(tmp_path / "run", tmp_path / "small.safetensors", budget=10**6)
    less = save_student(tmp_path / "run", tmp_path / "less.safetensors", budget=1000)
    assert less.stat().st_size < small.stat().st_size < whole.stat().st_size
    parts = load_parts(teacher)
    before = {name: value.clone() for name, value in parts.unet.state_dict().items()}

    def changed(file: Path) -> torch.Tensor:
        with attach(networks(parts.unet, parts.clip, None, None), file):
            now = parts.unet.state_dict()
            return torch.cat([(now[name] - before[name]).flatten() for name in before])

    expected = changed(whole)
    assert 1e-4 < (changed(small) - expected).norm() / expected.norm() < 0.05
    assert (changed(less) - expected).norm() < expected.norm()


def test_a_student_is_for_its_teacher_under_another_hash(pack_folder: Path, teacher: Path, tmp_path: Path) -> None:
    distil(pack_folder, tmp_path / "run", teacher, steps=1)
    renamed, other = tmp_path / "renamed.safetensors", tmp_path / "other.safetensors"
    parts = load_parts(teacher)
    save_native(renamed, dataclasses.replace(parts, defaults=Defaults(width=8, height=8, steps=7)), dtype="float32")
    file = save_student(tmp_path / "run", tmp_path / "fast.safetensors", base=renamed)
    assert read_adapter(file).metadata["base_sha256"] == sha256(renamed) != sha256(teacher)
    with torch.no_grad():
        parts.unet.conv_out.weight[0, 0, 0, 0] += 1
    save_native(other, parts, dtype="float32")
    with pytest.raises(InvalidRequest, match="another U-Net than the teacher"):
        save_student(tmp_path / "run", tmp_path / "fast.safetensors", base=other)


def test_bad_settings_say_why(pack_folder: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no file"):
        distil(pack_folder, tmp_path, Path("nowhere"), steps=1)
    with pytest.raises(InvalidRequest, match="32 that are held out"):
        distil(pack_folder, tmp_path, teacher, ways=32, steps=1)
    with pytest.raises(InvalidRequest, match="rank = 900 is as large"):
        distil(pack_folder, tmp_path, teacher, rank=900, steps=1)
    distil(pack_folder, tmp_path / "run", teacher, steps=1)
    with pytest.raises(InvalidRequest, match="another teacher"):
        distil(pack_folder, tmp_path / "run", teacher, guidance=5.0, steps=2)
