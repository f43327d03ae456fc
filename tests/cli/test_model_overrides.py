"""`--set NAME=VALUE` reaches the model in every command that has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import Run, assert_one_sentence
from PIL import Image
from safetensors.torch import load_file

COMMANDS = {
    "generate": ("generate", "a cat"),
    "outpaint": ("outpaint", "in.png", "a cat", "--all", "8"),
    "encode": ("encode", "in.png"),
    "decode": ("decode", "latent.safetensors"),
    "noise": ("noise", "in.png"),
    "sample-grid": ("sample-grid", "a cat"),
    "evaluate": ("evaluate",),
}


@pytest.fixture
def picture(here: Path) -> Path:
    Image.new("RGB", (16, 24), "teal").save(here / "in.png")
    return here / "in.png"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_does_not_exist_is_told_by_every_command(
    run: Run, picture: Path, model_file: Path, command: str
) -> None:
    if command == "decode":
        assert run("encode", "in.png", "--out", "latent.safetensors", "-m", model_file).exit_code == 0
    model = (model_file,) if command == "evaluate" else ("--model", model_file)
    result = run(*COMMANDS[command], *model, "--set", "predicton=v")
    assert_one_sentence(result.exit_code, result.stderr, "did you mean 'prediction'?")


def test_what_is_not_name_and_value_is_told(run: Run, model_file: Path) -> None:
    result = run("a cat", "-m", model_file, "--set", "prediction")
    assert_one_sentence(result.exit_code, result.stderr, "'prediction' is not NAME=VALUE", expected_code=2)


def test_a_picture_follows_what_is_set(run: Run, here: Path, model_file: Path) -> None:
    said: dict[str, tuple[str, ...]] = {
        "plain": (), "same": ("prediction=flow",), "v": ("prediction=v",), "scale": ("latent_scale=0.5",),
        "both": ("prediction=v", "latent-scale=0.5"),
    }  # fmt: skip
    painted = {}
    for name, words in said.items():
        options = [part for word in words for part in ("--set", word)]
        result = run("a cat", "-m", model_file, "--seed", 7, "--out", f"{name}.png", *options)
        assert result.exit_code == 0, result.stderr
        painted[name] = Image.open(here / f"{name}.png").tobytes()
    assert painted["same"] == painted["plain"]
    assert len({painted[name] for name in ("plain", "v", "scale", "both")}) == 4


def test_a_latent_follows_what_is_set(run: Run, here: Path, picture: Path, model_file: Path) -> None:
    assert run("encode", "in.png", "--out", "a.safetensors", "-m", model_file).exit_code == 0
    result = run("encode", "in.png", "--out", "b.safetensors", "-m", model_file, "--set", "latent_scale=2.0")
    assert result.exit_code == 0, result.stderr
    (one,), (other,) = load_file(here / "a.safetensors").values(), load_file(here / "b.safetensors").values()
    assert ((other - 2.0 * one).abs() < 1e-4).all() and one.abs().max() > 0.01
