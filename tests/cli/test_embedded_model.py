"""The model that ships: its bytes are the recorded ones, and it paints. Skipped where none ships."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import Run
from PIL import Image

from stable_diffusion import embedded
from stable_diffusion.weights.hashes import sha256

pytestmark = pytest.mark.skipif(embedded.model_path() is None, reason="no model has been trained yet")


def test_hash_is_the_recorded_one() -> None:
    assert sha256(embedded.MODEL) == embedded.recorded_hash(), "write model.sha256 anew when the model changes"


def test_the_first_prompt_of_the_readme_ends_with_a_picture(run: Run, here: Path) -> None:
    result = run("a beautiful sunset over the ocean", "--seed", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "outputs/1-a-beautiful-sunset-over-the-ocean.png\n"
    colours = Image.open(here / result.stdout.strip()).convert("RGB").getcolors(10**6)
    assert colours is not None and len(colours) > 100


def test_doctor_is_content(run: Run) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.stdout
    assert "Ready" in result.stdout
