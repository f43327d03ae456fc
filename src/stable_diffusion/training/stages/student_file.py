"""A trained student as a LoRA file, which any model file's `--lora` takes and which says how it wants to be run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...adapters.distilled import FORMAT
from ...errors import InvalidRequest
from ...weights.containers.hashes import sha256
from ...weights.containers.safetensors import write_safetensors
from ...weights.load import load_parts
from ..checkpoint import load_part
from .low_rank import adapter_tensors
from .shrink import as_float8, truncated


def save_student(
    run: str | Path,
    out: str | Path,
    *,
    dtype: torch.dtype = torch.float16,
    budget: int | None = None,
    base: str | Path | None = None,
) -> Path:
    """Write the LoRA file `out` of a student run: averaged weights, names of this package's U-Net, strength 1.

    budget  keep only the directions that matter most, at most so many numbers, each in 8 bits (`dtype` is not used)
    base    the model file that it is for, where that is the teacher under another hash (with other defaults, say)

    The metadata holds what `adapters.distilled` reads. Errors: InvalidRequest for a run of another stage or whose
    teacher is gone, for a base that is not the teacher, and for a budget that leaves nothing.
    """
    weights, state = load_part(run, "lora")
    if state["stage"] != "student":
        raise InvalidRequest(f"{str(run)!r} is a run of the stage {state['stage']!r}, expected 'student'")
    teacher = Path(state["config"]["teacher"])
    network = load_parts(teacher).unet
    if base is not None and not _alike(network.state_dict(), load_parts(base).unet.state_dict()):
        raise InvalidRequest(f"base = {str(base)!r} has another U-Net than the teacher {str(teacher)!r}")
    layers = dict(network.named_modules())
    metadata = {
        "format": FORMAT,
        "base_sha256": sha256(teacher if base is None else Path(base)),
        "steps": str(state["facts"]["jumps"]),
        "guidance": "1",
        "sampler": "euler",
        "schedule": "sgm_uniform",
    }
    if budget is None:
        write_safetensors(Path(out), adapter_tensors(weights, layers, "unet"), metadata, dtype=dtype)
    else:
        small = adapter_tensors(truncated(weights, budget), layers, "unet")
        write_safetensors(Path(out), in_8_bits(small), metadata)
    return Path(out)


def _alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def in_8_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A LoRA's factors as 8-bit floats, whose scale is said by an alpha for each layer."""
    stored: dict[str, Tensor] = {}
    for name in tensors:
        stem, _, rest = name.partition(".lora_down")
        if rest:
            down, first = as_float8(tensors[name])
            up, second = as_float8(tensors[f"{stem}.lora_up.weight"])
            stored |= {name: down, f"{stem}.lora_up.weight": up}
            stored[f"{stem}.alpha"] = torch.tensor(first * second * len(down))  # what is read is alpha / rank
    return stored
