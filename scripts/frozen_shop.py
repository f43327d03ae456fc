"""Tiny models, adapters and pictures for `frozen`, written into a temporary folder when they are first asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import frozen_hooks as hooks
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

TEXT = "text_model."
"""How names of text encoders begin, with older versions of transformers."""


class Shop:
    """Makes what cases need, once; `place` is the folder of all of it, `exercised` the settings that cases gave."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.exercised: set[str] = set()
        self._models: dict[str, Any] = {}
        self._cases: dict[str, Any] = {}

    def case(self, name: str) -> Any:
        """A model in both forms, folder and single file, as other tools write it."""
        if name not in self._cases:
            import convert_cases

            (kind,) = (kind for kind in convert_cases.KINDS if kind.name == name)
            case = convert_cases.make_case(kind, self.folder(f"models/{name}"))
            single = case.single.rename(case.single.with_name(f"{name}.safetensors"))
            self._cases[name] = replace(case, single=single)
        return self._cases[name]

    @cached_property
    def native(self) -> Path:
        return hooks.write_native(self.folder("models") / "native.safetensors")

    def model(self, name: str) -> Any:
        """A loaded model: a name of `convert_cases`, "native", or one of the package's own."""
        import stable_diffusion

        if name not in self._models:
            torch.manual_seed(0)
            if name.startswith("embedded"):
                found = stable_diffusion.load(name, device="cpu")
            elif name == "native":
                found = stable_diffusion.load(self.native, device="cpu")
            else:
                found = stable_diffusion.load(self.single(name), device="cpu")
            self._models[name] = found
        return self._models[name]

    def single(self, name: str) -> Path:
        """The single file of a model under its own name, which pictures hold."""
        return self.native if name == "native" else self.case(name).single

    def folder(self, name: str) -> Path:
        path = self.place / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def shapes(self, model: str) -> dict[str, tuple[int, ...]]:
        """Shapes of a model's weights in diffusers' layout, by path; those of the second text encoder after "te2."."""
        case, found = self.case(model), {}
        parts = {"unet": "", "transformer": "", "text_encoder": TEXT, "text_encoder_2": f"te2.{TEXT}"}
        for part, prefix in parts.items():
            for file in sorted((case.folder / part).glob("*.safetensors")):
                for name, tensor in load_file(file).items():
                    path = name.removeprefix(TEXT).removesuffix(".weight")
                    found[prefix + path] = tuple(tensor.shape)
        return found

    def save(self, name: str, state: Mapping[str, Tensor], **metadata: str) -> Path:
        """A .safetensors file of these tensors; at most one entry of metadata, whose order is not fixed."""
        path = self.place / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.detach().clone().contiguous() for key, tensor in state.items()}, path, metadata or None)
        return path

    def text(self, name: str, text: str) -> Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def json(self, name: str, value: object) -> Path:
        return self.text(name, json.dumps(value))


def picture(width: int = 48, height: int = 32, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A smooth picture of random colours; with alpha in a mode that has it."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, len(mode)), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def mask(width: int = 48, height: int = 32) -> Image.Image:
    """White in the middle, with a grey rim at its left."""
    made = Image.new("L", (width, height), 0)
    made.paste(255, (width // 3, height // 4, width - 6, height - 5))
    made.paste(128, (width // 3 - 4, height // 4, width // 3, height - 5))
    return made


def noise(seed: int, *shape: int, size: float = 0.3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size
