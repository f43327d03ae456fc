"""Number types and devices by name, and which ones `auto` is.

float32   the reference
bfloat16  the range of float32 with 8 bits of precision, float16  11 bits with a small range
int8      weights and activations of linear layers and convolutions in 8 bits, the rest in what `auto` is
int8-weights  their weights alone in 8 bits, for memory
"""

from __future__ import annotations

import torch

from ..errors import InvalidRequest, unknown_choice
from .choose import Precision

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
QUANTISED: dict[str, Precision] = {"int8": "int8", "int8-weights": "int8-weights"}
"""Names of number types in which an engine computes, and no weight is stored."""
LARGE = 50_000_000
"""Weights of a denoising network from which the CPU's faster precision is the default. Smaller ones, the built-in
model among them, take a tenth of a second in float32, and their pictures keep their bytes."""


def computed_in(dtype: str | torch.dtype) -> Precision:
    """How an engine computes for a `dtype` as `load` has it."""
    return QUANTISED.get(dtype, "stored") if isinstance(dtype, str) else "stored"


def resolve_dtype(dtype: str | torch.dtype, device: torch.device, weights: int = 0) -> torch.dtype:
    """The type of the weights in memory, of a denoising network with so many.

    "auto" is float16 on a GPU; on a CPU bfloat16 for a network of `LARGE` or more where this processor is measured to
    be faster in it (see `processor`), and else float32. InvalidRequest where there is no such type, or not here.
    """
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    name = str(dtype)
    if name in QUANTISED and device.type != "cpu":
        raise InvalidRequest(f"dtype {name!r} runs on the CPU, and the device is {device.type}; choose 'float16'")
    if name == "auto" or name in QUANTISED:
        return _automatic(device, weights)
    if name not in DTYPES:
        raise unknown_choice("dtype", name, ["auto", *DTYPES, *QUANTISED])
    return DTYPES[name]


def _automatic(device: torch.device, weights: int) -> torch.dtype:
    if device.type == "cuda":
        return torch.float16
    if device.type != "cpu" or weights < LARGE:
        return torch.float32
    from .processor import fast_bfloat16

    return torch.bfloat16 if fast_bfloat16() else torch.float32


def resolve_device(device: str | torch.device) -> torch.device:
    """ "auto" -> a CUDA GPU where there is one, else the CPU. InvalidRequest where the device cannot be used."""
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise unknown_choice("device", device, ["auto", "cpu", "cuda", "mps"]) from None
    missing = (found.type == "cuda" and not torch.cuda.is_available()) or (
        found.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise InvalidRequest(f"device {str(device)!r} is not available on this machine; choose 'cpu' or 'auto'")
    return found
