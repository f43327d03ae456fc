"""The background training: the curriculum, stopping, resting, being killed, and what each piece leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes.embedded.background import runner
from recipes.embedded.background.curriculum import CURRICULUM, Curriculum, Piece, read_curriculum
from recipes.embedded.background.runner import Background, Place, only_one
from tiny_training import settings, write_pack

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.training import checkpoint as ckpt
from stable_diffusion.training.data import TrainingPack
from stable_diffusion.training.export import export
from stable_diffusion.training.run import train
from stable_diffusion.weights.load import load_parts

ROOT = Path(__file__).resolve().parents[2]
TABLE = """
config = "denoiser.toml"

[[piece]]
name = "red"
concepts = ["few"]
views = 2

[[piece]]
name = "all"
steps = 3
[piece.settings]
batch_size = 2
[piece.settings.data.weights]
"b*" = 0.5
"""
CONFIG = """
size = 16
batch_size = 4
precision = "float32"
log_every = 1
sample_steps = 2
prompts = ["a red disc"]

[unet]
channels = [16, 24]
blocks_per_stage = 1
transformer_depth = [0, 1]
heads = 2
groups = 4
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model file to start from."""
    root = tmp_path_factory.mktemp("runs")
    folders = {name: root / name for name in ("vae", "text", "denoiser")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stable_diffusion.training.run.loss_curve", lambda lines, path: None)
        for name, folder in folders.items():
            train(name, data=data, out=folder, overrides=settings(name, folders, steps=2), device="cpu")
    return export(
        folders["denoiser"],
        root / "model.safetensors",
        tokenizer=data,
        dtype="float32",
        defaults={"steps": 7},
        card={"name": "tiny"},
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "curriculum.toml").write_text(TABLE)
    (tmp_path / "denoiser.toml").write_text(CONFIG)
    (tmp_path / "few.txt").write_text("# reds\nred*\n")
    return tmp_path / "curriculum.toml"


@pytest.fixture
def place(data: Path, model: Path, tmp_path: Path) -> Place:
    return Place(data=data, out=tmp_path / "out", model=model, pause=tmp_path / "PAUSE")


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stable_diffusion.training.run.loss_curve", lambda lines, path: None)


def background(table: Path, place: Place, report: Any = lambda line: None) -> Background:
    return Background(read_curriculum(table), place, report)


def events(place: Place) -> list[tuple[str, str]]:
    lines = (place.out / runner.LOG).read_text().splitlines()
    return [(line["event"], line["piece"]) for line in map(json.loads, lines)]


def test_the_table_says_pieces_steps_and_settings(table: Path, data: Path) -> None:
    curriculum = read_curriculum(table)
    red, everything = curriculum.pieces
    assert curriculum.first == "red"
    pack = TrainingPack(data)
    reds = len(pack.select(red.stage().data))
    assert 0 < reds < 16 and red.planned(pack) == -(-2 * reds // 4)
    assert everything.planned(pack) == 3 and everything.stage().batch_size == 2
    assert everything.stage().data.weights == {"b*": 0.5}
    assert [piece.name for piece in islice(curriculum.rounds(), 4)] == ["red", "all", "all-2", "all-3"]
    third = next(islice(curriculum.rounds(), 3, None))
    assert third.stage().seed == 3 and [piece.name for piece in curriculum.before(third)] == ["red", "all", "all-2"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps = 3", "steps = 3\nviews = 2", "one of both"),
        ("steps = 3", "", "one of both"),
        ('name = "all"', 'name = "red"', "comes twice"),
        ("steps = 3", "stepps = 3", "did you mean 'steps'"),
        ("config =", 'first = "rad"\nconfig =', "did you mean 'red'"),
    ],
)
def test_a_wrong_table_is_one_sentence(table: Path, old: str, new: str, words: str) -> None:
    table.write_text(TABLE.replace(old, new))
    with pytest.raises(InvalidRequest, match=words):
        read_curriculum(table)


def test_the_recipes_own_curriculum_is_valid() -> None:
    curriculum = read_curriculum(CURRICULUM)
    for piece in curriculum.pieces:
        assert piece.stage().high_noise_share > 0  # type: ignore[attr-defined]
    concepts = curriculum.pieces[0].stage().data.concepts
    assert 300 < len(concepts) == len(set(concepts))


def test_pieces_follow_each_other_and_leave_a_model_and_numbers(table: Path, place: Place) -> None:
    background(table, place).run(pieces=2)
    assert events(place) == [("start", "red"), ("done", "red"), ("start", "all"), ("done", "all")]
    red, everything = (json.loads((place.out / name / "done.json").read_text()) for name in ("red", "all"))
    assert red.keys() == {"new"} and everything.keys() == {"old", "new"}
    assert red["new"]["count"] == everything["old"]["count"]
    assert (place.out / "all/judged-old.png").is_file()
    state = ckpt.read_state(place.out / "all" / ckpt.NAME)
    assert state["step"] == 3 and state["config"]["start_from"] == str(place.out / "red")
    packed, base = load_parts(place.out / "all" / runner.MODEL), load_parts(place.model)
    assert packed.defaults == base.defaults and packed.card == base.card


def test_a_piece_waits_for_shards_that_are_not_rendered_yet(
    table: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write_text(TABLE.replace("batch_size = 2", 'batch_size = 2\ndata.shards = ["a", "late"]'))
    (place.out / "red").mkdir(parents=True)
    (place.out / "red/done.json").write_text("{}")
    growing = place.out.parent / "pack"
    shutil.copytree(place.data, growing)
    manifest = json.loads((growing / "pack.json").read_text())
    slept: list[float] = []

    def render(seconds: float) -> None:
        slept.append(seconds)
        shutil.copytree(growing / "b", growing / "late")
        manifest["shards"].append({"path": "late", "count": 12})
        (growing / "pack.json").write_text(json.dumps(manifest))

    monkeypatch.setattr(runner.time, "sleep", render)
    with pytest.raises(InvalidRequest, match="not the folder of a training run"):  # "red" left no checkpoint here
        background(table, replace(place, data=growing)).run(pieces=1)
    assert events(place) == [("wait", "all"), ("start", "all")] and len(slept) == 1


def test_a_bare_machine_begins_with_the_first_piece(table: Path, place: Place) -> None:
    table.write_text('first = "all"\n' + TABLE)
    background(table, place).run(pieces=1)
    assert events(place) == [("start", "all"), ("done", "all")]
    assert ckpt.read_state(place.out / "all" / ckpt.NAME)["config"]["start_from"] == str(place.model)


def test_it_rests_while_the_pause_file_exists_and_loses_nothing(
    table: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused after a step and taken up, the weights are those of a run that was never paused, bit for bit."""
    whole = replace(place, out=place.out.parent / "whole")
    curriculum = read_curriculum(table)
    steady = Curriculum(pieces=(replace(curriculum.pieces[1], steps=6),), first="all")
    Background(steady, whole, lambda line: None).run(pieces=1)
    monkeypatch.setattr(runner, "LOOK", 0.01)

    def pause(line: str) -> None:
        if " step 2/" in line and not place.pause.exists():
            place.pause.touch()
            time.sleep(0.3)  # the watcher looks
            threading.Timer(0.5, place.pause.unlink).start()

    Background(steady, place, pause).run(pieces=1)
    assert events(place) == [("start", "all"), ("pause", "all"), ("start", "all"), ("done", "all")]
    one, other = (ckpt.read_tensors(each.out / "all" / ckpt.NAME, "model.") for each in (whole, place))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_signal_stops_it_with_a_checkpoint(table: Path, place: Place) -> None:
    def stop(line: str) -> None:
        if " step 1/" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        background(table, place, stop).run(pieces=1)
    assert events(place) == [("start", "red"), ("stop", "red")]
    assert ckpt.read_state(place.out / "red" / ckpt.NAME)["step"] == 1
    background(table, place).run(pieces=1)
    assert place.done(Piece(name="red", config=table))


def test_a_killed_process_is_taken_up_from_its_newest_checkpoint(table: Path, place: Place) -> None:
    """kill -9 in the middle of a piece: the next process goes on, removes half-written files and finishes."""
    (table.parent / "denoiser.toml").write_text("checkpoint_minutes = 0.0\n" + CONFIG)
    table.write_text(TABLE.replace("views = 2", "steps = 5000"))
    command = [sys.executable, "-m", "recipes.embedded.background", "--data", str(place.data), "--out", str(place.out)]
    command += ["--curriculum", str(table), "--model", str(place.model)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 240
            while not (place.out / "red" / ckpt.PREVIOUS).is_file() and time.monotonic() < deadline:
                time.sleep(0.05)
            with pytest.raises(InvalidRequest, match="only one"):
                background(table, place).run(pieces=1)
        finally:
            process.kill()
    path = ckpt.find_checkpoint(place.out / "red")
    assert path is not None
    reached = ckpt.read_state(path)["step"]
    assert 0 < reached < 5000
    (place.out / "red/.checkpoint-half").write_bytes(b"half")
    table.write_text(TABLE.replace("views = 2", f"steps = {reached + 1}"))
    background(table, place).run(pieces=1)
    assert ckpt.read_state(place.out / "red" / ckpt.NAME)["step"] == reached + 1
    assert not list((place.out / "red").glob(".checkpoint-*"))


def test_the_lock_is_free_again_after_use(tmp_path: Path) -> None:
    for _ in range(2):
        with only_one(tmp_path), pytest.raises(InvalidRequest, match="another process"), only_one(tmp_path):
            pass


@pytest.mark.parametrize(
    ("load", "own", "most", "threads"),
    [(2.0, 2, "", 2), (3.1, 2, "", 1), (7.0, 1, "", 1), (1.0, 1, "", 2), (0.0, 0, "", 2), (0.0, 0, "1", 1)],
)
def test_threads_are_the_cores_that_others_leave(
    load: float, own: int, most: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", most)
    assert runner.free_threads(own) == threads
