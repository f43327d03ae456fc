"""The loop, on every stage: resuming, stopping, diverging, learning."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_training import settings

from stable_diffusion.errors import InvalidRequest, TrainingDiverged
from stable_diffusion.training import checkpoint as ckpt
from stable_diffusion.training.config import load_config
from stable_diffusion.training.data import TrainingPack
from stable_diffusion.training.denoiser import DenoiserTraining
from stable_diffusion.training.distributed import join_world
from stable_diffusion.training.report import loss_curve
from stable_diffusion.training.run import build_stage, train
from stable_diffusion.training.stage import Context
from stable_diffusion.training.vae import VAETraining

STAGES = ("vae", "text", "denoiser", "joint")


def run(stage: str, pack: Path, out: Path, runs: dict[str, Path], **more: Any) -> dict[str, Any]:
    options = {key: more.pop(key) for key in ("minutes", "resume", "clock", "on_progress") if key in more}
    return train(stage, data=pack, out=out, overrides=settings(stage, runs, **more), device="cpu", **options)


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_run_equals_unbroken(
    stage: str, pack_folder: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by a signal after two of five steps and resumed: every tensor of the checkpoint is bit-equal."""
    run(stage, pack_folder, tmp_path / "whole", runs, steps=5)

    def stop(progress: Any) -> None:
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(stage, pack_folder, tmp_path / "broken", runs, steps=5, on_progress=stop)
    assert ckpt.read_state(tmp_path / "broken" / ckpt.NAME)["step"] == 2
    torch.manual_seed(99)
    run(stage, pack_folder, tmp_path / "broken", runs, steps=5, resume="must")
    whole, broken = (ckpt.read_tensors(tmp_path / name / ckpt.NAME) for name in ("whole", "broken"))
    assert whole.keys() == broken.keys() and len(whole) > 20
    for name, value in whole.items():
        assert torch.equal(value, broken[name]), name
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in map(_log, (tmp_path / "whole",))]
    again = [line["loss"] for line in _log(tmp_path / "broken") if "loss" in line]
    assert again == losses[0]


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_high_noise_and_shared_latents_reach_the_denoiser(
    pack_folder: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    """Half of the batch is drawn from 0.9 on; a second run reads the latents that the first one left."""
    cache = tmp_path / "latents"
    chosen = settings("denoiser", runs, high_noise_share=0.5, high_noise_from=0.9, latent_cache=str(cache))
    context = Context(TrainingPack(pack_folder), join_world("cpu"), tmp_path / "one")
    stage = build_stage("denoiser", load_config("denoiser", None, chosen), context)
    assert isinstance(stage, DenoiserTraining)
    steps = torch.stack([stage.draw(step)[2] for step in range(20)])
    assert (steps[:, :2] >= 900).all() and (steps[:, 2:] < 900).any()
    kept = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(kept) == 2
    again = DenoiserTraining(stage.config, Context(context.pack, context.world, tmp_path / "two"))
    assert torch.equal(again.data, stage.data)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == kept


@pytest.mark.parametrize("stage", STAGES)
def test_run_folder_holds_log_curve_and_samples(
    stage: str, pack_folder: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    numbers = run(stage, pack_folder, tmp_path, runs, steps=2)
    assert numbers["step"] == 2 and numbers["loss"] > 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"checkpoint.safetensors", "log.jsonl", "samples.png"} <= names
    assert not any(name.startswith(".") for name in names)
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.width > 16


def test_loss_curve_is_drawn_from_the_log(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = [{"step": n, "seconds": 1.0, "loss": 1 / (n + 1), **({"psnr": 9.0} if n == 2 else {})} for n in range(4)]
    loss_curve(lines, tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as curve:
        colours = curve.convert("RGB").getcolors(10**6)
    assert colours is not None and len(colours) > 20
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def test_unresumed_run_starts_anew_and_other_stage_is_refused(
    pack_folder: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    run("vae", pack_folder, tmp_path, runs, steps=2)
    assert run("vae", pack_folder, tmp_path, runs, steps=1, resume="never")["step"] == 1
    assert max(line["step"] for line in _log(tmp_path)) == 1
    with pytest.raises(InvalidRequest, match="checkpoint of the stage 'vae', not 'text'"):
        run("text", pack_folder, tmp_path, runs, steps=1)


def test_nan_stops_and_keeps_the_last_good_checkpoint(
    pack_folder: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("vae", pack_folder, tmp_path, runs, steps=2)
    good = (tmp_path / ckpt.NAME).read_bytes()
    plain = VAETraining.pictures

    def poisoned(self: VAETraining, rows: Any) -> torch.Tensor:
        return plain(self, rows) * float("nan")

    monkeypatch.setattr(VAETraining, "pictures", poisoned)
    with pytest.raises(TrainingDiverged, match=r"step 2: .*last good checkpoint is .*checkpoint\.safetensors"):
        run("vae", pack_folder, tmp_path, runs, steps=4)
    assert (tmp_path / ckpt.NAME).read_bytes() == good


@pytest.mark.parametrize(("stage", "steps"), [("vae", 60), ("text", 40), ("denoiser", 80)])
def test_loss_falls_on_a_few_pictures(
    stage: str, steps: int, pack_folder: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    more: dict[str, Any] = {"data.limit": 4, "data.caption_dropout": 0.0, "optimiser.learning_rate": 5e-3}
    more |= {"adversarial_after": 1.0, "equivariance": 0.0} if stage == "vae" else {}
    more |= {"text_learning_rate": 1.0} if stage == "denoiser" else {}
    run(stage, pack_folder, tmp_path, runs, steps=steps, **more)
    losses = [line["loss"] for line in _log(tmp_path) if "loss" in line]
    tenth = steps // 10
    assert sum(losses[-tenth:]) < 0.75 * sum(losses[:tenth])


def test_time_budget_plans_the_decay_and_ends(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """A clock that ticks a quarter of a second per reading: the run ends before its minute and the rate has decayed."""
    ticks = iter(range(10**6))

    def clock() -> float:
        return next(ticks) * 0.25

    numbers = run("vae", pack_folder, tmp_path, runs, minutes=1.0, clock=clock)
    assert 10 < numbers["step"] < 240
    assert numbers["seconds"] <= 60
    rates = [line["rate"] for line in _log(tmp_path) if "rate" in line]
    assert rates[-1] < 0.2 * max(rates)
    state = ckpt.read_state(tmp_path / ckpt.NAME)
    assert abs(state["total"] - state["step"]) <= 3


def test_total_minutes_spans_calls(pack_folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    ticks = iter(range(10**6))

    def clock() -> float:
        return next(ticks) * 0.25

    run("vae", pack_folder, tmp_path, runs, minutes=0.5, total_minutes=1.2, clock=clock)
    first = ckpt.read_state(tmp_path / ckpt.NAME)
    rates = [line["rate"] for line in _log(tmp_path) if "rate" in line]
    assert rates[-1] == max(rates)  # not yet decaying
    run("vae", pack_folder, tmp_path, runs, minutes=1.0, total_minutes=1.2, clock=clock)
    assert ckpt.read_state(tmp_path / ckpt.NAME)["seconds"] > first["seconds"]
    rates = [line["rate"] for line in _log(tmp_path) if "rate" in line]
    assert rates[-1] < 0.3 * max(rates)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs an end"),
        ({"minutes": 0.0}, "greater than 0"),
        ({"minutes": float("nan")}, "greater than 0"),
        ({"steps": 1, "resume": "yes"}, "resume mode"),
        ({"steps": 1, "resume": "must"}, "nothing to resume"),
        ({"steps": 1, "size": 18}, "multiple of the VAE's downscale"),
    ],
)
def test_bad_requests(
    options: dict[str, Any], words: str, pack_folder: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        run("vae", pack_folder, tmp_path / "r", runs, **options)


def test_missing_runs_are_named(pack_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="vae_run is not set"):
        train("denoiser", data=pack_folder, out=tmp_path, overrides=["steps=1"])
    with pytest.raises(InvalidRequest, match="denoiser_run"):
        train("joint", data=pack_folder, out=tmp_path, overrides=["steps=1"])
    with pytest.raises(InvalidRequest, match="unknown device"):
        train("vae", data=pack_folder, out=tmp_path, overrides=["steps=1"], device="abacus")
