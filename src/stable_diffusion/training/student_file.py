"""A trained student as a LoRA file, which any model file's `--lora` takes and which says how it wants to be run."""

from __future__ import annotations

from pathlib import Path

import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.training.checkpoint import load_part
from stable_diffusion.training.low_rank import adapter_tensors
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.safetensors_writer import write_safetensors


def save_student(run: str | Path, out: str | Path, *, dtype: torch.dtype = torch.float16) -> Path:
    """Write the LoRA file `out` of a student run: averaged weights, names of this package's U-Net, strength 1.

    The metadata holds how it was distilled: steps, guidance (1: none), sampler and noise schedule. Errors:
    InvalidRequest for a run of another stage or whose teacher is gone.
    """
    weights, state = load_part(run, "lora")
    if state["stage"] != "student":
        raise InvalidRequest(f"{str(run)!r} is a run of the stage {state['stage']!r}, expected 'student'")
    layers = dict(load_parts(state["config"]["teacher"]).unet.named_modules())
    metadata = {
        "format": "stable_diffusion.lora.v1",
        "steps": str(state["facts"]["jumps"]),
        "guidance": "1",
        "sampler": "euler",
        "schedule": "sgm_uniform",
    }
    write_safetensors(Path(out), adapter_tensors(weights, layers, "unet"), metadata, dtype=dtype)
    return Path(out)
