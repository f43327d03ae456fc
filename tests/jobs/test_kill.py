"""A queue that is killed at random moments; the whole of it with STABLE_DIFFUSION_WHOLE_TESTS=1."""

from __future__ import annotations

import os
from pathlib import Path

import kill_jobs
import pytest

WHOLE = bool(os.environ.get("STABLE_DIFFUSION_WHOLE_TESTS"))
JOBS, KILLS, BOMBS = (400, 20, 1) if WHOLE else (12, 1, 0)


@pytest.mark.timeout(3600 if WHOLE else 300)
def test_every_job_is_done_once_or_lost(tmp_path: Path, database_url: str | None) -> None:
    if database_url is not None and not WHOLE:
        pytest.skip("the whole of it on PostgreSQL runs with STABLE_DIFFUSION_WHOLE_TESTS=1")
    found = kill_jobs.whole(tmp_path, database_url, JOBS, KILLS, bombs=BOMBS)
    done = sum(found["attempts of done jobs"].values())
    assert done + len(found["attempts of lost jobs"]) == JOBS + BOMBS, found
    assert set(found["attempts of lost jobs"]) <= {3} and found["ended by a job"] == 3 * BOMBS, found
    assert found["pictures"] == found["expected pictures of done jobs"] > 0, found
    assert not found["wrong pictures"] and not found["left over"] and not found["files without a row"], found
