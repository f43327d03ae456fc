"""`stable-diffusion evaluate`: which judges it takes, and what it says where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Run

from stable_diffusion import embedded
from stable_diffusion.data.bundle import write_bundle
from stable_diffusion.data.pack import Record


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A file of three held-out pictures of 16 pixels."""
    records = [
        Record(0, k, f"made/{k}", "object", f"thing {k}", "none", None, "made", "heldout", (f"thing {k}",), ())
        for k in range(3)
    ]
    pictures = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 4), dtype=np.uint8)
    path = tmp_path / "few.zip"
    with path.open("wb") as file:
        write_bundle(file, pictures, records, [])
    return path


@pytest.fixture
def no_judges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A package without built-in judges."""
    for name in ("TOWER", "PICTURES"):
        monkeypatch.setattr(embedded, name, tmp_path / "none")
    return monkeypatch


def test_the_built_in_pictures_are_used(
    run: Run, model_file: Path, few: Path, no_judges: pytest.MonkeyPatch, here: Path
) -> None:
    arguments = ("evaluate", model_file, "--section", "quality", "--out", "report")
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["quality"] is None
    no_judges.setattr(embedded, "PICTURES", few)
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "reconstruction, PSNR" in result.stdout and "no image tower was given" in result.stdout
    found = json.loads((here / "report" / "report.json").read_text())
    assert found["settings"]["pack"] == {"name": "few.zip", "records": 3} and found["quality"]["reconstructed"] == 3
    assert "<html" in (here / "report" / "report.html").read_text()


def test_pictures_that_are_given_go_first(run: Run, model_file: Path, few: Path, no_judges: pytest.MonkeyPatch) -> None:
    no_judges.setattr(embedded, "PICTURES", model_file)  # which is none, and is not opened
    result = run("evaluate", model_file, "--section", "quality", "--data", few, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["settings"]["pack"]["name"] == "few.zip"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--save-tower", "x"), "--save-tower was given without --tower"),
        (("--tower", "nowhere"), "there is no image tower 'nowhere'"),
        (("--data", "nowhere"), "nowhere is not a data pack"),
        (("--features", "nowhere"), "there is no file or folder nowhere"),
        (("--section", "speed"), "speed"),
    ],
)
def test_judges_that_are_none(
    run: Run, model_file: Path, no_judges: pytest.MonkeyPatch, arguments: tuple[str, str], reason: str
) -> None:
    result = run("evaluate", model_file, *arguments)
    assert result.exit_code != 0 and reason in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(embedded.tower_path() is None, reason="no tower has been built yet")
def test_the_shipped_tower_belongs_to_the_shipped_model() -> None:
    from stable_diffusion.evaluation.tower import load_eye

    path = embedded.tower_path()
    assert path is not None and load_eye(path).read(["a cat", "猫"]).shape[0] == 2


@pytest.mark.skipif(embedded.pictures_path() is None, reason="no pictures have been chosen yet")
def test_the_shipped_pictures_are_held_out_and_few() -> None:
    from stable_diffusion.evaluation.pack import PicturePack

    path = embedded.pictures_path()
    assert path is not None and path.stat().st_size <= 2 * 2**20
    assert {record.split for record in PicturePack(path).records} == {"heldout"}
