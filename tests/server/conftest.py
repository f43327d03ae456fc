"""One server for the tests of a file, with a LoRA and a ControlNet for its model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

from safetensors.torch import save_file

from adapter_files import kohya, lora_state, shapes
from control_files import write_controlnet
from served import FAST, Served, served
from stable_diffusion import load


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `loras/ink`, `controls/control_canny` and a file of styles."""
    folder = tmp_path_factory.mktemp("served")
    model = load(FAST)
    for name in ("loras", "controls"):
        (folder / name).mkdir()
    layers = tuple(name for name in shapes(model) if name.endswith(("to_q", "to_v")))
    save_file(lora_state(model, layers, kohya), folder / "loras" / "ink.safetensors")
    write_controlnet(folder / "controls" / "control_canny.safetensors", model.parts.unet.config)
    (folder / "styles.csv").write_text("name,prompt,negative_prompt\nwoodcut,{prompt} as a woodcut,photo\n")
    return folder


@pytest.fixture(scope="module")
def server(folders: Path) -> Iterator[Served]:
    kinds = {"loras": (folders / "loras",), "controls": (folders / "controls",)}
    with served(folders, **kinds, styles_file=folders / "styles.csv") as found:
        yield found
