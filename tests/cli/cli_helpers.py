"""What the tests of the command share besides fixtures."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Run = Callable[..., Result]
RunProcess = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def assert_one_sentence(code: int, stderr: str, *words: str, expected_code: int = 1) -> None:
    """One line that begins with `error:`, names all `words` and is no traceback."""
    assert code == expected_code, stderr
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith(("note:", "seed "))]
    assert len(lines) == 1 and lines[0].startswith("error: "), stderr
    assert "Traceback" not in stderr
    for word in words:
        assert word in lines[0], stderr


def leftovers(folder: Path) -> list[str]:
    """Every file below a folder, temporary ones included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
