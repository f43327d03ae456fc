"""Latents on disk: a .safetensors file with the tensor `latent` [N,C,h,w] in unit scale, and its model's name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelFileError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "stable_diffusion.latent.v1"


def save_latent(path: Path, latent: Tensor, model: str) -> None:
    """Write `latent` (float32) whole or not at all; `model` is the name of the model whose latent space it is in."""
    import torch

    from ..weights.containers.safetensors import write_safetensors

    tensors = {"latent": latent.detach().to("cpu", torch.float32)}
    write_safetensors(path, tensors, {"format": FORMAT, "model": model})


def is_latent(path: Path) -> bool:
    """Whether the file says that it holds a latent; False for anything that is not a readable safetensors file."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    from ..weights.containers.open import read_tensors

    try:
        return read_tensors(path)[1].get("format") == FORMAT
    except ModelFileError:
        return False


def load_latent(path: Path) -> tuple[Tensor, str]:
    """(latent [N,C,h,w], name of its model); ModelFileError where the file is anything else."""
    import torch

    from ..weights.containers.open import read_tensors

    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT or "latent" not in tensors:
        raise ModelFileError(f"{path} is not a latent: expected a file that `stable-diffusion encode` wrote")
    latent = tensors["latent"].to(torch.float32)
    if latent.ndim != 4 or latent.numel() == 0:
        raise ModelFileError(
            f"{path} holds a latent of shape {tuple(latent.shape)}: expected four dimensions [N,C,h,w]"
        )
    return latent, metadata.get("model", "")


def latent_facts(path: Path) -> dict[str, Any]:
    """What `info` says about a latent."""
    latent, model = load_latent(path)
    return {
        "kind": "latent",
        "path": str(path),
        "shape": list(latent.shape),
        "model": model,
        "mean": round(float(latent.mean()), 4),
        "deviation": round(float(latent.std(correction=0)), 4),
    }
