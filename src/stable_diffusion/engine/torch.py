"""The torch engine: the module itself, on a CPU in half precision with fused layers. It refuses nothing, so that
whatever another engine refuses runs here.

In float32 it is the reference: nothing but torch's own operators, in the order of the modules.
"""

from __future__ import annotations

import threading

import torch
from torch import nn

from ..nn.attention import Preference
from ..nn.sharing import with_layers
from ..nn.text_memory import remembering
from .base import Engine, Features, Network, Part

_METHODS: dict[Part, str] = {"image_encoder": "encode", "image_decoder": "decode"}


class TorchEngine(Engine):
    """Calls the module where its weights are, in their precision."""

    name = "torch"

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()

    def network(self, module: nn.Module, part: Part) -> Network:
        if part == "denoiser":
            module = with_layers(module, remembering)
        return method_of(self.fused(module), part)

    def refuses(self, features: Features) -> str | None:
        return None

    def weights_changed(self, module: nn.Module) -> None:
        """Nothing: no copy of the weights is kept."""

    def fused(self, module: nn.Module) -> nn.Module:
        """The module with layers that are faster on this machine: the same weights, no copy of them."""
        if not gains_from_fusing(module):
            return module
        from .cpu_layers import fused, in_channels_last
        from .guided_pair import with_pairs
        from .processor import measured

        Preference.chunked = measured().chunked
        with self._lock:
            # Made for each run: half a millisecond, and hooks that came meanwhile are seen.
            in_channels_last(module)
            return with_pairs(module, fused)


def method_of(module: nn.Module, part: Part) -> Network:
    """What a network is called by: itself, or of an autoencoder the method that the part names."""
    found: Network = getattr(module, _METHODS[part]) if part in _METHODS else module
    return found


def gains_from_fusing(module: nn.Module) -> bool:
    """Whether a network is in bfloat16 on a CPU whose torch has oneDNN's operators."""
    placed = {(each.device.type, each.dtype) for each in module.parameters()}
    return placed == {("cpu", torch.bfloat16)} and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


TORCH = TorchEngine()
"""The default of everything that takes an engine."""


def unavailable() -> str | None:
    """None: torch runs wherever the package does."""
    return None


def make_engine(precision: str = "stored") -> Engine:
    """The engine for weights as they are stored; the one for 8 bits has a module of its own."""
    assert precision == "stored"
    return TORCH


def engine_for(engine: Engine, features: Features) -> tuple[Engine, str | None]:
    """The engine for a run with these features, and a note where it is another because the chosen one refuses."""
    refusal = engine.refuses(features)
    if refusal is None:
        return engine, None
    if engine.wrapped is None:
        return TORCH, f"this run uses torch: {refusal}"
    found, note = engine_for(engine.wrapped, features)
    return found, note or f"this run shares no network calls: {refusal}"
