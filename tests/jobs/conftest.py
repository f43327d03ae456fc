"""Databases and services for the tests of the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_server import missing, postgres
from quick_runner import QuickRunner

from stable_diffusion.jobs import JobService


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """None for SQLite in the service's folder, else an empty PostgreSQL database."""
    if request.param == "sqlite":
        return None
    import psycopg

    url: str = request.getfixturevalue("postgres_url")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return url


@pytest.fixture
def runner() -> QuickRunner:
    return QuickRunner()


@pytest.fixture
def service(tmp_path: Path, runner: QuickRunner) -> Iterator[JobService]:
    """On SQLite, with a worker that is not started: `service.start()` or `service.workers[0].run_next()`."""
    made = JobService(tmp_path / "data", runners=[runner])
    yield made
    runner.go.set()
    made.close()


@pytest.fixture
def make_service(tmp_path: Path, database_url: str | None) -> Iterator[Callable[..., JobService]]:
    """Services on either database, closed at the end."""
    made: list[JobService] = []

    def make(**options: Any) -> JobService:
        made.append(JobService(tmp_path / "data", database=database_url, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
