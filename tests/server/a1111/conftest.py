"""One server for the tests of a file, with a LoRA for its model, and a tiny other model with a ControlNet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

from client_folders import write_folders
from served import Served, served

from stable_diffusion.pipeline.models import StableDiffusion


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: StableDiffusion) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with served(folder, **write_folders(folder, tiny_model)) as found:
        yield found
