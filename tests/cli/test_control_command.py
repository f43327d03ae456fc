"""`--control` and the options of its group, and what `info` says of such files."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import Run, assert_one_sentence, leftovers
from PIL import Image

from control_files import write_controlnet
from stable_diffusion.models.unet import UNet


@pytest.fixture
def files(here: Path, tiny_native_unet: UNet) -> Path:
    """Two ControlNets and a picture in the current folder."""
    for seed, name in enumerate(("edges", "depth")):
        write_controlnet(here / f"{name}.safetensors", tiny_native_unet.config, seed)
    Image.linear_gradient("L").save(here / "map.png")
    return here


def test_options_belong_to_the_control_before_them(run: Run, files: Path, model_file: Path) -> None:
    first = ["--control", "edges.safetensors", "--control-image", "map.png", "--control-weight", 0.5]
    second = ["--control", "depth.safetensors", "--control-image=map.png", "--control-mode", "control"]
    second += ["--control-end", 0.5, "--control-preprocessor", "invert", "--control-resize", "fill"]
    result = run("a cat", "-m", model_file, "-s", 1, "-o", "led.png", *first, *second)
    assert result.exit_code == 0, result.stderr
    text = Image.open(files / "led.png").info["parameters"]
    assert 'ControlNet 0: "Module: none, Model: edges [' in text and "], Weight: 0.5, Resize Mode: Crop" in text
    assert 'ControlNet 1: "Module: invert, Model: depth [' in text and "], Weight: 1, Resize Mode: Resize and" in text
    assert "Guidance End: 0.5, Pixel Perfect: True, Control Mode: ControlNet is more important" in text
    assert run("a cat", "-m", model_file, "-s", 1, "-o", "plain.png").exit_code == 0
    assert Image.open(files / "plain.png").tobytes() != Image.open(files / "led.png").tobytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--control-weight", 0.5], ["--control-weight belongs to a --control before it"]),
        (["--control", "edges.safetensors"], ["'edges' has no image"]),
        (["--control", "edges.safetensors", "--control-image", "no.png"], ["control image 'no.png' does not exist"]),
        (["--control", "map.png", "--control-image", "map.png"], ["is a PNG picture, not a model"]),
        (
            ["--control", "edges.safetensors", "--control-start", 0.1, "--control-start", 0.2],
            ["--control-start was given twice for the control 'edges.safetensors'"],
        ),
    ],
)
def test_bad_groups_are_one_sentence(
    options: list[str], words: list[str], run: Run, files: Path, model_file: Path
) -> None:
    result = run("a cat", "-m", model_file, *options)
    assert_one_sentence(result.exit_code, result.stderr, *words)
    assert "outputs" not in "".join(leftovers(files))


def test_info_says_what_it_is(run: Run, files: Path) -> None:
    result = run("info", "edges.safetensors")
    assert result.exit_code == 0, result.stderr
    assert "ControlNet" in result.stdout and "a model whose tokens have width 24" in result.stdout


def test_names_are_those_of_the_pipeline() -> None:
    """What a control may name, something is there to do."""
    from stable_diffusion.pipeline.tasks.preprocess import preprocessed
    from stable_diffusion.request.control import PREPROCESSORS, RESIZES
    from stable_diffusion.request.pictures import RESIZES as RESIZED

    assert set(RESIZES) == set(RESIZED)
    assert all(preprocessed(Image.new("RGB", (8, 8)), name).mode == "RGB" for name in PREPROCESSORS)
