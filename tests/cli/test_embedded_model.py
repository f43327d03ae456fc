"""The model that ships: its bytes are the recorded ones, and it paints. Skipped where none ships."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import Run
from PIL import Image

from stable_diffusion import embedded
from stable_diffusion.weights.containers.hashes import sha256

pytestmark = pytest.mark.skipif(embedded.model_path() is None, reason="no model has been trained yet")


def test_hash_is_the_recorded_one() -> None:
    assert sha256(embedded.MODEL) == embedded.recorded_hash(), "write model.sha256 anew when the model changes"


def test_the_first_prompt_of_the_readme_ends_with_a_picture(run: Run, here: Path) -> None:
    result = run("a beautiful sunset over the ocean", "--seed", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "outputs/1-a-beautiful-sunset-over-the-ocean.png\n"
    colours = Image.open(here / result.stdout.strip()).convert("RGB").getcolors(10**6)
    assert colours is not None and len(colours) > 100


@pytest.mark.skipif(embedded.fast_path() is None, reason="no few-step model has been trained yet")
def test_the_few_step_model_is_for_this_model_and_paints(run: Run, here: Path) -> None:
    result = run(
        "a red apple", "--seed", "1", "--model", "embedded-fast", "--background", "white", "--out", "apple.png"
    )
    assert result.exit_code == 0, result.stderr
    image = Image.open(here / "apple.png")
    assert "Steps: 4" in image.info["parameters"] and "CFG scale: 1" in image.info["parameters"]
    red, green, blue = image.convert("RGB").resize((1, 1), box=(96, 112, 160, 176)).getpixel((0, 0))
    assert red > 2 * max(green, blue), "the middle of a red apple is red"


def test_all_of_it_is_small() -> None:
    """What ships in the wheel beside the code: at most 40 MiB."""
    files = [path for path in embedded.FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40 * 2**20


def test_doctor_is_content(run: Run) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.stdout
    assert "Ready" in result.stdout
