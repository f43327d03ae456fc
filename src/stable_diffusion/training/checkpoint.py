"""Checkpoints of a run: one safetensors file with the state as JSON in its metadata; no pickle.

RUN/checkpoint.safetensors is replaced in one rename, so a full disk or a kill leaves the old one whole; the one before
it stays as checkpoint.previous.safetensors. Tensor names: "model.<module>.<name>", "ema.<...>", "optim.<...>",
"rng.<...>".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BrokenModel, InvalidRequest, ModelFileError
from ..weights.containers.open import model_file
from ..weights.containers.safetensors import read_safetensors, write_safetensors
from ..weights.containers.tensors import TensorFile

FORMAT = "stable_diffusion.training.v1"
NAME = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
NEW = ".checkpoint.new.safetensors"


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write atomically and keep the checkpoint before it. Raises ModelFileError where the disk refuses."""
    target, new = folder / NAME, folder / NEW
    metadata = {"format": FORMAT, "state": json.dumps(state, ensure_ascii=False)}
    try:
        write_safetensors(new, tensors, metadata)
        if target.exists():
            os.replace(target, folder / PREVIOUS)
        os.replace(new, target)
    except (OSError, ModelFileError) as error:
        raise ModelFileError(f"could not write the checkpoint {target}: {error}; the previous one is kept") from None
    finally:
        new.unlink(missing_ok=True)
    return target


def find_checkpoint(folder: str | Path) -> Path | None:
    """The newest readable checkpoint of the run, or None."""
    for name in (NAME, PREVIOUS):
        path = Path(folder) / name
        if path.is_file():
            return path
    return None


def read_state(path: str | Path) -> dict[str, Any]:
    """The JSON state of a checkpoint file. Raises ModelFileError for anything else."""
    _, metadata = _open(path)
    if metadata.get("format") != FORMAT:
        raise ModelFileError(
            f"{path} is not a training checkpoint: its format is {metadata.get('format')!r}, not {FORMAT!r}"
        )
    state: dict[str, Any] = json.loads(metadata["state"])
    return state


def read_tensors(path: str | Path, prefix: str = "") -> dict[str, Tensor]:
    """Tensors whose name starts with `prefix`, with the prefix taken off.

    Each is a copy: torch takes the state of its generator as it lies in memory, and fails where bytes of a mapped file
    are not aligned.
    """
    tensors, _ = _open(path)
    return {name[len(prefix) :]: tensors[name].clone() for name in tensors if name.startswith(prefix)}


def _open(path: str | Path) -> tuple[TensorFile, dict[str, str]]:
    try:
        return read_safetensors(model_file(path))
    except (OSError, ModelFileError) as error:
        raise ModelFileError(f"{path} is not a readable checkpoint: {error}") from None


def load_part(run: str | Path, module: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(state dict of `module`, checkpoint state) of a run folder; averaged weights where the run keeps an average."""
    path = find_checkpoint(run)
    if path is None:
        raise InvalidRequest(f"{str(run)!r} is not the folder of a training run: it has no {NAME}")
    state = read_state(path)
    weights = read_tensors(path, f"ema.{module}.") or read_tensors(path, f"model.{module}.")
    if not weights:
        raise BrokenModel(
            f"the checkpoint {path} holds no module {module!r}, only {', '.join(state.get('modules', []))}"
        )
    return weights, state


def assign(module: torch.nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Strict load: every key and shape must match, else BrokenModel with the first differences."""
    own = module.state_dict()
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if missing or extra or wrong:
        raise BrokenModel(
            f"{what} does not fit the config: {len(missing)} missing {missing[:3]}, "
            f"{len(extra)} unexpected {extra[:3]}, {len(wrong)} of another shape {sorted(wrong)[:3]}"
        )
    module.load_state_dict(dict(weights))


def rng_tensors() -> dict[str, Tensor]:
    """States of torch's global generators (the stages draw from stateless ones; layers such as dropout use these)."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors


def restore_rng(tensors: Mapping[str, Tensor]) -> None:
    if "cpu" in tensors:
        torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
