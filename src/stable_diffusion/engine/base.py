"""The seam between the networks and what runs them.

A network is written once, in `models`, as a torch module. An engine answers `network(module, part)` with a callable of
the same signature: the module itself, or the same network compiled, quantised or converted. Nothing else in the house
knows which: no model is changed for an engine, and an engine imports nothing but the networks.

    engine, note = engine_for(engine, Features(residuals=True))
    network = engine.network(module, "denoiser")
    output = network(x, timestep, tokens, residuals=residuals)

What an engine cannot do it says beforehand, in `refuses`; such a run is computed by torch, with a note. An engine that
keeps anything made of a module's weights drops it in `weights_changed`. Runs with weights of their own (LoRA) never
change a module that others use: they bring a module of their own, which shares all other tensors with the one that it
was made of (`nn.sharing.origin` names it). An engine may be asked by several threads at once.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from torch import nn

Part: TypeAlias = Literal["denoiser", "text_encoder", "image_encoder", "image_decoder", "control"]
"""What a network is to a model. `image_encoder` and `image_decoder` are the `encode` and `decode` of an autoencoder."""

Network: TypeAlias = Callable[..., Any]
"""Takes and gives what the module takes and gives."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """What a run asks of a network besides a plain call.

    seamless        convolutions reach across the edges (tiling, panorama)
    image_prompt    cross-attentions read image tokens too (IP-Adapter)
    residuals       features of side networks are added (ControlNet, T2I-Adapter)
    attention_maps  somebody records the attention
    weight_patches  the run brings weights of its own (LoRA)
    shortcuts       deep features are kept from step to step, or tokens are merged
    """

    seamless: bool = False
    image_prompt: bool = False
    residuals: bool = False
    attention_maps: bool = False
    weight_patches: bool = False
    shortcuts: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are asked for."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name))


class Engine(ABC):
    """Runs networks.

    name       what `--engine` calls it
    precision  None where it is that of the weights
    one_row    it computes the rows of a batch one at a time, so that more rows at once gain nothing
    sharing    how its runs share calls, for the text of pictures; None where they do not
    wrapped    the engine that runs what this one refuses; None is torch
    """

    name: str
    precision: str | None = None
    one_row: bool = False
    sharing: str | None = None
    wrapped: Engine | None = None

    def __init__(self) -> None:
        _ENGINES.add(self)

    @property
    def threads(self) -> int | None:
        """Of torch's operators in all of a run that begins now; None leaves their number as it is."""
        return None

    @abstractmethod
    def network(self, module: nn.Module, part: Part) -> Network:
        """The module as a callable of its own signature (for autoencoders that of the method that `part` names).

        Asked once per run; what is costly to make is kept by the engine.
        """

    @abstractmethod
    def refuses(self, features: Features) -> str | None:
        """One plain sentence where this engine cannot run a network so; None where it can."""

    @abstractmethod
    def weights_changed(self, module: nn.Module) -> None:
        """The module's own weights are others now: an adapter was attached, detached or fused."""


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def weights_changed(module: nn.Module) -> None:
    """Tell every engine that a module's own weights are others now."""
    for engine in list(_ENGINES):
        engine.weights_changed(module)
