"""Side networks for the tiny models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from control_files import write_controlnet
from stable_diffusion.pipeline.models import StableDiffusion


@pytest.fixture
def control_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a random ControlNet for a model and returns its path."""

    def write(model: StableDiffusion, name: str = "edges", seed: int = 1, tasks: int = 0) -> Path:
        return write_controlnet(tmp_path / f"{name}.safetensors", model.parts.unet.config, seed, tasks)

    return write
