"""The tiny pack, and finished runs on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_training import settings, write_pack

from stable_diffusion.training.run import train


@pytest.fixture(scope="session", autouse=True)
def no_curves() -> Iterator[None]:
    """Drawing loss.png takes far longer than a tiny step; one test draws it by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stable_diffusion.training.run.loss_curve", lambda lines, path: None)
        yield


@pytest.fixture(scope="session")
def pack_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="session")
def runs(pack_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished two-step runs of the first three stages, by name."""
    root = tmp_path_factory.mktemp("runs")
    folders = {name: root / name for name in ("vae", "text", "denoiser")}
    for name, folder in folders.items():
        train(name, data=pack_folder, out=folder, overrides=settings(name, folders, steps=2), device="cpu")
    return folders
