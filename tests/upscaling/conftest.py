from __future__ import annotations

from pathlib import Path

import pytest
from upscaler_files import written


@pytest.fixture
def upscaler(tmp_path: Path) -> Path:
    return written(tmp_path)
