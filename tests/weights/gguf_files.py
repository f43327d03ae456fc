"""GGUF files as other programs write them, made with the library's own writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch


def quantised_kind(tensor: torch.Tensor, wanted: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    """As converters choose: matrices whose rows divide into blocks are quantised, other tensors stay as they are."""
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    fits = tensor.ndim >= 2 and tensor.shape[-1] % block == 0
    return wanted if fits else gguf.GGMLQuantizationType.F32


def write_gguf(
    path: Path,
    state: Mapping[str, torch.Tensor],
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F16,
    **metadata: str,
) -> Path:
    """`state` with its matrices in `kind`; integers are left out, as converters do."""
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", "sd1"))
    for key, value in metadata.items():
        writer.add_string(f"general.{key}", value)
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        wanted = quantised_kind(tensor, kind)
        data = tensor.float().numpy()
        if wanted == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quants.quantize(data, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_blocks(kind: gguf.GGMLQuantizationType, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random bytes of whole blocks, for kinds that the library reads and does not write; scales are made small."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return np.random.default_rng(seed).integers(0, 0x3C, (rows, columns // block * size), dtype=np.uint8)
