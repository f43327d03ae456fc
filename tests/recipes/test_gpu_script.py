"""The script for a rented GPU: its shell is valid, it says what it does, and the files it names are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "recipes/embedded/gpu.sh"


def test_without_a_command_it_says_which_there_are() -> None:
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    commands = re.findall(r"^(\w+)\)$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == ["prepare", "arrive", "train", "student", "home"]
    for command in commands:
        assert f"gpu.sh {command}" in done.stdout


@pytest.mark.parametrize("kind", ["toml", "safetensors"])
def test_the_files_it_names_exist(kind: str) -> None:
    named = re.findall(rf"(?:recipes|src)/[\w/]+\.{kind}", SCRIPT.read_text(encoding="utf-8"))
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name


def test_what_the_student_brings_out_fits() -> None:
    """At most eight files of at most 16 MiB: the model in pieces of 15, their list, the student, a log and a sheet."""
    model = ROOT / "src/stable_diffusion/embedded/model.safetensors"
    assert -(-model.stat().st_size // (15 << 20)) + 4 <= 8
    assert model.with_name("fast.safetensors").stat().st_size < 16 << 20
