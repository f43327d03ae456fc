"""LoRA files for tiny models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from adapter_files import ALL, kohya, lora_state
from safetensors.torch import save_file

from stable_diffusion.pipeline.models import StableDiffusion

WriteLora = Callable[..., Path]


@pytest.fixture
def lora_file(tmp_path: Path) -> WriteLora:
    """Writes a LoRA in kohya's style for a model and returns its path."""

    def write(model: StableDiffusion, name: str = "style", paths: tuple[str, ...] = ALL, **metadata: str) -> Path:
        path = tmp_path / f"{name}.safetensors"
        save_file(lora_state(model, paths, kohya), path, metadata=metadata or None)
        return path

    return write
