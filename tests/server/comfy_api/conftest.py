"""One server for the tests of a file, with a LoRA for its model, and the graphs that clients send."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

from adapter_files import kohya, lora_state, shapes
from safetensors.torch import save_file
from served import FAST, Served, served

from stable_diffusion import load


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("comfy")
    (folder / "loras").mkdir()
    model = load(FAST)
    layers = tuple(name for name in shapes(model) if name.endswith(("to_q", "to_v")))
    save_file(lora_state(model, layers, kohya), folder / "loras" / "ink.safetensors")
    with served(folder, loras=(folder / "loras",)) as found:
        yield found
