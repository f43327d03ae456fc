"""The torch engine: the module itself. It refuses nothing, so that whatever another engine refuses runs here."""

from __future__ import annotations

from torch import nn

from .base import Engine, Features, Network, Part

_METHODS: dict[Part, str] = {"image_encoder": "encode", "image_decoder": "decode"}


class TorchEngine(Engine):
    """Calls the module where its weights are, in their precision."""

    name = "torch"

    def network(self, module: nn.Module, part: Part) -> Network:
        found: Network = getattr(module, _METHODS[part]) if part in _METHODS else module
        return found

    def refuses(self, features: Features) -> str | None:
        return None

    def weights_changed(self, module: nn.Module) -> None:
        """Nothing: no copy of the weights is kept."""


TORCH = TorchEngine()
"""The default of everything that takes an engine."""


def unavailable() -> str | None:
    """None: torch runs wherever the package does."""
    return None


def make_engine(precision: str = "stored") -> Engine:
    """The engine for weights as they are stored."""
    return TORCH


def engine_for(engine: Engine, features: Features) -> tuple[Engine, str | None]:
    """The engine for a run with these features, and a note where it is torch because the chosen one refuses."""
    refusal = engine.refuses(features)
    return (engine, None) if refusal is None else (TORCH, f"this run uses torch: {refusal}")
