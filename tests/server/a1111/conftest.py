"""One server for the tests of a file, with a LoRA for its model, and a tiny other model with a ControlNet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

from adapter_files import kohya, lora_state, shapes
from safetensors.torch import save_file
from served import FAST, Served, served

from control_files import write_controlnet
from stable_diffusion import load
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.weights.checkpoints.native import save_native


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_model: StableDiffusion) -> Path:
    """A folder with `loras/ink`, `models/tiny`, `controls/control_canny` (of tiny), and a file of styles."""
    folder = tmp_path_factory.mktemp("served")
    model = load(FAST)
    for name in ("loras", "controls", "models"):
        (folder / name).mkdir()
    layers = tuple(name for name in shapes(model) if name.endswith(("to_q", "to_v")))
    save_file(lora_state(model, layers, kohya), folder / "loras" / "ink.safetensors")
    save_native(folder / "models" / "tiny.safetensors", tiny_model.parts, dtype="float32")
    write_controlnet(folder / "controls" / "control_canny.safetensors", tiny_model.parts.unet.config)
    (folder / "styles.csv").write_text("name,prompt,negative_prompt\nwoodcut,{prompt} as a woodcut,photo\n")
    return folder


@pytest.fixture(scope="module")
def server(folders: Path) -> Iterator[Served]:
    kinds = {name: (folders / name,) for name in ("loras", "controls", "models")}
    with served(folders, **kinds, styles_file=folders / "styles.csv") as found:
        yield found
