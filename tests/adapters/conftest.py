"""LoRA files for tiny models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from adapter_files import ALL, kohya, lora_state
from safetensors.torch import save_file

import tiny_xl as xl
from stable_diffusion.pipeline.models import StableDiffusion, load

WriteLora = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_xl_model(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    """A tiny Stable Diffusion XL, whose two text encoders have other widths."""
    return load(xl.write_folder(xl.BASE, tmp_path_factory.mktemp("xl")), device="cpu")


@pytest.fixture
def lora_file(tmp_path: Path) -> WriteLora:
    """Writes a LoRA in kohya's style for a model and returns its path."""

    def write(model: StableDiffusion, name: str = "style", paths: tuple[str, ...] = ALL, **metadata: str) -> Path:
        path = tmp_path / f"{name}.safetensors"
        save_file(lora_state(model, paths, kohya), path, metadata=metadata or None)
        return path

    return write
