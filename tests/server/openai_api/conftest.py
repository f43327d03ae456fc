"""One server for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

from served import Served, served

from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.weights.checkpoints.native import save_native


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: StableDiffusion) -> Iterator[Served]:
    """With `tiny`, a model without alpha."""
    folder = tmp_path_factory.mktemp("openai")
    (folder / "models").mkdir()
    save_native(folder / "models" / "tiny.safetensors", tiny_model.parts, dtype="float32")
    with served(folder, models=(folder / "models",)) as found:
        yield found
