"""An upscaler of a file: a network that enlarges pictures by a fixed factor, ours or one of `spandrel`."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..weights.build import Prefixed, build
from ..weights.containers.open import model_file, read_tensors
from ..weights.foreign import packing_of
from ..weights.networks.upscalers import upscaler_plan
from .others import other_network

KEPT = 2
"""Upscalers that stay in memory."""


@dataclass(frozen=True, eq=False)
class Upscaler:
    """What a file enlarges with.

    network    pictures [B,C,H,W] in [0, 1] -> [B,C,H*scale,W*scale], on `device` in `dtype`
    channels   of the pictures that it takes: 1 or 3
    """

    name: str
    scale: int
    channels: int
    network: Callable[[Tensor], Tensor]
    device: torch.device
    dtype: torch.dtype

    @torch.inference_mode()
    def __call__(self, picture: Tensor) -> Tensor:
        """[1,3,H,W] float32 in [0, 1] -> [1,3,H*scale,W*scale] float32 on the CPU, clamped to [0, 1]."""
        given = picture.mean(1, keepdim=True) if self.channels == 1 else picture
        made = self.network(given.to(self.device, self.dtype)).float().clamp(0, 1).cpu()
        return made.expand(-1, 3, -1, -1) if made.shape[1] == 1 else made[:, :3]


def load_upscaler(path: str | os.PathLike[str], device: str = "auto") -> Upscaler:
    """The upscaler in a file; the last few stay in memory until their file changes.

    Raises ModelFileError (with UnknownModel, BrokenModel and UnsafeFile below it) for what is wrong with the file, and
    InvalidRequest where it needs `spandrel`, which is not installed.
    """
    file = model_file(path)
    stat, place = file.stat(), _device(device)
    key = (file.resolve(), stat.st_mtime_ns, stat.st_size, str(place))
    with _LOCK:
        if key not in _LOADED:
            _LOADED[key] = _load(file, place)
        _LOADED.move_to_end(key)
        while len(_LOADED) > KEPT:
            _LOADED.popitem(last=False)
        return _LOADED[key]


def release_upscalers() -> None:
    """Gives back the memory of upscalers that nobody uses."""
    with _LOCK:
        _LOADED.clear()


_LOADED: OrderedDict[Hashable, Upscaler] = OrderedDict()
_LOCK = threading.Lock()


def scale_of(path: Path) -> int | None:
    """By how much an upscaler enlarges, from the shapes in its file alone; None where they do not say."""
    tensors, _ = read_tensors(path)
    plan = upscaler_plan({name: tensors.info(name).shape for name in tensors})
    return None if plan is None else plan.config.scale


def _load(file: Path, device: torch.device) -> Upscaler:
    tensors, _ = read_tensors(file)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    plan = upscaler_plan({name: tensors.info(name).shape for name in tensors})
    if plan is None or packing_of(tensors) is not None:
        other = other_network(tensors, file, device)
        return Upscaler(file.stem, other.scale, other.channels, other.network, device, torch.float32)
    network = build(
        plan.make, Prefixed(tensors, plan.prefix), plan.table, what=f"the upscaler {file.name}", dtype=dtype,
        device=device,
    )  # fmt: skip
    return Upscaler(file.stem, network.scale, plan.config.in_channels, network, device, dtype)


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
