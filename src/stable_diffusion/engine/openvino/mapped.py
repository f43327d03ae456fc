"""One copy of a network's weights in memory: what OpenVINO packed, and the originals on the disk.

OpenVINO keeps the weights packed for its kernels. So that torch's own need no memory beside them, they are written to a
file of the cache and become a view of it: the same bits, read by the system when somebody asks for them (a run that
needs torch, a LoRA), and given up when memory is short.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .store import Store

LEAST = 200_000_000
"""Bytes of weights from which a file is worth its place on the disk."""
ALIGNED = 64
FILE = "weights.bin"


@torch.inference_mode(False)
def map_weights(module: nn.Module, store: Store) -> list[Tensor]:
    """Let a module's parameters be views of a file, where they are large, in main memory and not such already.

    Returns the tensors that took memory until now: calls of torch that are under way may still read them, so that they
    are best kept for some seconds. Nothing is done, and nothing returned, where the disk refuses or holds other bits.
    """
    parameters = dict(module.named_parameters())
    tensors = {name: each.data.contiguous() for name, each in parameters.items()}
    total = sum(each.nbytes for each in tensors.values())
    if total < LEAST or total > store.limit or _are_mapped(tensors):
        return []
    try:
        folder = store.entry(f"weights-{digest(tensors)[:32]}", lambda place: _write(tensors, place / FILE))
        views = _views(tensors, folder / FILE)
    except (OSError, ValueError):
        return []
    if any(not torch.equal(_bits(views[name]), _bits(each)) for name, each in tensors.items()):
        return []
    before = [each.data for each in parameters.values()]
    for name, parameter in parameters.items():
        parameter.data = views[name]
    return before


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, kinds, shapes and bits."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        found.update(_bits(tensor).numpy().data)
    return found.hexdigest()


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _offsets(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    offsets, place = {}, 0
    for name, tensor in tensors.items():
        offsets[name] = place
        place += -(-tensor.nbytes // ALIGNED) * ALIGNED
    return offsets


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    with path.open("wb") as file:
        for tensor in tensors.values():
            file.write(_bits(tensor).numpy().data)
            file.write(b"\0" * (-tensor.nbytes % ALIGNED))


def _views(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The same tensors in a file; whoever writes to one gets pages of its own."""
    with path.open("rb") as file:
        whole = torch.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), dtype=torch.uint8)
    offsets = _offsets(tensors)
    return {
        name: whole[offsets[name] : offsets[name] + each.nbytes].view(each.dtype).view(each.shape)
        for name, each in tensors.items()
    }


def _are_mapped(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the largest tensor is a part of a file already, as far as the system says."""
    address = max(tensors.values(), key=lambda each: each.nbytes).data_ptr()
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        span, *rest = line.split(maxsplit=5)
        first, last = (int(each, 16) for each in span.split("-"))
        if first <= address < last:
            return len(rest) == 5 and rest[4].startswith("/")
    return False
