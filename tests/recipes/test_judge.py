"""The judge of painted pictures, on a denoiser that knows the answers; and the prompts that judge by eye."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes.embedded import prompts
from recipes.embedded.judge import LEVELS, Judge, main, read_concepts
from tiny_training import settings, write_pack
from torch import Tensor

from stable_diffusion.data.pack import Pack
from stable_diffusion.training.data import TrainingPack
from stable_diffusion.training.export import join
from stable_diffusion.training.run import train
from stable_diffusion.weights.parts import Parts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    folders = {name: root / name for name in ("vae", "text", "denoiser")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stable_diffusion.training.run.loss_curve", lambda lines, path: None)
        for name, folder in folders.items():
            train(name, data=data, out=folder, overrides=settings(name, folders, steps=2), device="cpu")
    return folders["denoiser"]


class Knows(torch.nn.Module):
    """A velocity that leads to the real latent of whose noise it is given, off by `error` in every latent."""

    def __init__(self) -> None:
        super().__init__()
        self.real = self.noise = torch.zeros(0)
        self.error = 0.0

    def forward(self, x: Tensor, timestep: Tensor, tokens: Tensor, **told: Any) -> Tensor:
        sigma = (timestep / 1000)[:, None, None, None]
        paths = (1 - sigma[:, None]) * self.real + sigma[:, None] * self.noise  # [B, N, c, h, w]
        own = (paths - x[:, None]).square().sum(dim=(2, 3, 4)).argmin(dim=1)
        return (x - self.real[own] - self.error) / sigma


def judge_of(run: Path, data: Path, rows: np.ndarray[Any, Any]) -> tuple[Judge, Knows]:
    network = Knows()
    parts: Parts = replace(join(run, tokenizer=data), unet=network)  # type: ignore[arg-type]
    judge = Judge(parts, TrainingPack(data), rows)
    network.real, network.noise = judge.real, judge.noise
    return judge, network


def test_a_denoiser_that_knows_the_pictures_is_judged_perfect(run: Path, data: Path) -> None:
    judge, network = judge_of(run, data, np.array([0, 3, 5, 9]))
    found, pictures = judge.judge(guidance=1.0)
    assert found.count == found.nearest == 4 and found.painted < 1e-8
    assert list(found.x0) == [str(level) for level in LEVELS] and max(found.x0.values()) < 1e-8
    assert torch.allclose(pictures, judge.decode(judge.real), atol=1e-3)
    network.error = 0.5
    found, _ = judge.judge(guidance=1.0)
    assert all(error == pytest.approx(0.25, rel=1e-3) for error in found.x0.values())
    assert found.painted == pytest.approx(0.25, rel=1e-3)


def test_the_nearest_counts_pictures_that_came_out_as_themselves(run: Path, data: Path) -> None:
    judge, network = judge_of(run, data, np.array([0, 3, 5, 9]))
    network.real = judge.real[[1, 0, 2, 3]]
    network.noise = judge.noise
    found, _ = judge.judge(guidance=1.0)
    assert found.nearest == 2 and found.painted > 1e-4


def test_the_command_judges_a_run_and_draws_a_sheet(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "few.txt").write_text("# a remark\nred*\nblue*\n")
    assert read_concepts(tmp_path / "few.txt") == ("red*", "blue*")
    given = [str(run), "--data", str(data), "--concepts", str(tmp_path / "few.txt"), "--shards", "b", "--count", "3"]
    assert main([*given, "--steps", "2", "--sheet", str(tmp_path / "sheet.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 3 and found["x0"].keys() == {str(level) for level in LEVELS}
    assert (tmp_path / "sheet.png").is_file()


def test_the_120_prompts_are_what_they_say() -> None:
    groups = prompts.read_prompts()
    assert {name: len(group) for name, group in groups.items()} == {
        "objects": 60,
        "colours": 20,
        "scenes": 20,
        "Chinese": 20,
    }
    every = [prompt for group in groups.values() for prompt in group]
    assert len({prompts.plain(prompt) for prompt in every}) == 120
    assert all(not prompt.isascii() for prompt in groups["Chinese"])


def test_a_prompt_that_is_a_caption_is_found(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prompts.trained_on(["A red  disc.", "a reddish disc", "红色圆"], Pack(data)) == ["A red  disc.", "红色圆"]
    (tmp_path / "some.txt").write_text("a reddish disc\n")
    assert prompts.main([str(data), "--prompts", str(tmp_path / "some.txt")]) == 0
    (tmp_path / "some.txt").write_text("a reddish disc\na red disc\n")
    assert prompts.main([str(data), "--prompts", str(tmp_path / "some.txt")]) == 1
    assert "a training caption: a red disc" in capsys.readouterr().err


@pytest.mark.skipif("PACK" not in os.environ, reason="PACK names no data pack of the recipe")
def test_none_of_the_120_prompts_is_a_training_caption() -> None:
    groups = prompts.read_prompts()
    assert prompts.trained_on([prompt for group in groups.values() for prompt in group], Pack(os.environ["PACK"])) == []
