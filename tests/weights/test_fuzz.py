"""A small slice of `scripts/fuzz_headers.py`: mutated files are read, or refused with the package's own error."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_headers.py"
COUNTS = {"safetensors": 150, "zip": 150, "pickle": 150, "stream": 150, "gguf": 150}
COUNTS |= {"config": 150, "adapter": 60, "model": 60, "load": 4}


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="fuzz")


@pytest.mark.parametrize("kind", COUNTS)
def test_mutated_files_end_in_tensors_or_in_our_own_error(kind: str, script: dict[str, Any], tmp_path: Path) -> None:
    ends, _, wrong = script["fuzz"](kind, COUNTS[kind], 1_000_000, tmp_path)
    crashes = [line for line in wrong if "seconds" not in line]  # no test here asserts a time
    assert not crashes and sum(ends.values()) == COUNTS[kind]
    assert kind in ("adapter", "model", "load") or (
        ends["read"] > 0 and len(ends) > 1
    )  # not all are refused at the door


def test_every_kind_is_in_the_slice(script: dict[str, Any]) -> None:
    assert set(script["cases"]()) == set(COUNTS)
