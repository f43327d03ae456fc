"""Tiny checkpoints on disk, written once for all tests of the loader; tests that change one copy it first."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_checkpoints as tiny


@pytest.fixture(scope="session", params=[tiny.SD1, tiny.SD2], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> tiny.Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def folder(kind: tiny.Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_folder(kind, tmp_path_factory.mktemp(f"folder_{kind.name}"))


@pytest.fixture(scope="session")
def single(kind: tiny.Kind, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp(f"single_{kind.name}") / f"{kind.name}.safetensors"
    return tiny.write_single(kind, folder, place)
