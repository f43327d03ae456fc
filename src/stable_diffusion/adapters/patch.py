"""Changed weights over untouched originals: adding, removing and fusing layers of changes.

A parameter that is changed keeps its object; only its `data` points to another tensor, `original + sum of strength
times difference`, and taking a layer off points it back. This is chosen over hooks in the forward pass, because then a
step costs exactly what it costs without adapters and every kind works (DoRA and rotations have no cheap side branch),
and over adding to and subtracting from the weights, because (w + d) - d is not w in floating point: here the original
is never written to, so that taking off is exact, immediate and frees all memory. The price is one more copy of the
weights that are changed. Differences are always those of the original weight, added in the order of attaching, so that
taking off the first of two adapters leaves the same bits as never having attached it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn

from ..errors import BrokenModel
from ..weights.containers.finite import not_finite

Deltas = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Originals in float32 -> as many differences at strength 1."""


@dataclass(frozen=True, eq=False)
class Change:
    """The parameters `names` change together by `deltas`."""

    names: tuple[str, ...]
    deltas: Deltas


@dataclass(eq=False)
class Layer:
    """The changes that one adapter makes to one network, all times `strength`; `source` is its file, for messages."""

    changes: tuple[Change, ...]
    strength: float
    source: str = "an adapter"

    @property
    def names(self) -> list[str]:
        return [name for change in self.changes for name in change.names]


class Stack:
    """The layers on one network, and the originals of the parameters that they change."""

    def __init__(self, module: nn.Module) -> None:
        self._parameters = dict(module.named_parameters())
        self._originals: dict[str, Tensor] = {}
        self._layers: list[Layer] = []

    def attach(self, layer: Layer) -> None:
        """Put a layer on. BrokenModel, and nothing is changed, where a weight would not be finite."""
        changed = self.finite([*self._layers, layer], set(layer.names))
        self._layers.append(layer)
        self._set(layer.names, changed)

    def detach(self, layer: Layer) -> None:
        """Take a layer off; what it alone changed is the original again, bit for bit."""
        if layer in self._layers:
            self._layers.remove(layer)
            self._set(layer.names, self.changed(self._layers, set(layer.names)))

    def fuse(self, layer: Layer) -> None:
        """Make a layer's change part of the originals, for good, whether it is on or not. BrokenModel where a weight
        would not be finite."""
        fused = self.finite([layer])
        self._originals.update(fused)
        if layer in self._layers:
            self._layers.remove(layer)
        self._set(fused, self.changed(self._layers, set(fused)))

    def set_strength(self, layer: Layer, strength: float) -> None:
        """Give a layer that is on another strength. BrokenModel, and it keeps its own, where a weight would not be
        finite."""
        before, layer.strength = layer.strength, strength
        try:
            changed = self.finite(self._layers, set(layer.names))
        except BrokenModel:
            layer.strength = before
            raise
        self._set(layer.names, changed)

    def finite(self, layers: Sequence[Layer], only: set[str] | None = None) -> dict[str, Tensor]:
        """What `changed` gives. BrokenModel where factors multiply to more than the dtype of a weight can hold; a
        weight that was not finite before is not the layers' fault."""
        changed = self.changed(layers, only)
        for name in not_finite(changed):
            if not not_finite({name: self.original(name)}):
                sources = dict.fromkeys(layer.source for layer in layers if layer.strength and name in layer.names)
                dtype = str(changed[name].dtype).removeprefix("torch.")
                raise BrokenModel(
                    f"{' and '.join(sources)} would change the weight {name} to numbers beyond the range of {dtype}; "
                    f"expected a smaller strength, or another file"
                )
        return changed

    @torch.no_grad()
    def changed(self, layers: Iterable[Layer], only: set[str] | None = None) -> dict[str, Tensor]:
        """Parameter name -> its value under `layers`, for the parameters (of `only`) that any of them changes."""
        sums: dict[str, Tensor] = {}
        for layer in layers:
            for change in layer.changes if layer.strength != 0 else ():
                wanted = [name for name in change.names if only is None or name in only]
                if not wanted:
                    continue
                originals = [self.original(name).float() for name in change.names]
                deltas = change.deltas(originals)
                for name, original, difference in zip(change.names, originals, deltas, strict=True):
                    if name in wanted:
                        sums[name] = torch.add(sums.get(name, original), difference, alpha=layer.strength)
        return {name: torch.empty_like(self.original(name)).copy_(sums.pop(name)) for name in list(sums)}

    def with_layers(self, layers: Sequence[Layer]) -> Swapped:
        """The weights under the attached layers and `layers`, ready to be swapped in for a while; BrokenModel where one
        would not be finite."""
        only = {name for layer in layers for name in layer.names}
        changed = self.finite([*self._layers, *layers], only)
        return Swapped([(self._parameters[name], value) for name, value in changed.items()])

    def original(self, name: str) -> Tensor:
        """The value of a parameter without any layer; follows a model that was moved while layers were on it."""
        now = self._parameters[name].data
        return self._originals[name].to(now) if name in self._originals else now

    def _set(self, names: Iterable[str], changed: dict[str, Tensor]) -> None:
        for name in names:
            original = self.original(name)
            if name in changed:
                self._originals[name] = original
                self._parameters[name].data = changed[name]
            elif name in self._originals:
                del self._originals[name]
                self._parameters[name].data = original


class Swapped:
    """`with swapped:` parameters show other values, and before and after it their own; exchanging costs no copy."""

    def __init__(self, pairs: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
        self._pairs = pairs
        self._saved: list[Tensor] = []

    def __enter__(self) -> None:
        self._saved = [parameter.data for parameter, _ in self._pairs]
        for parameter, value in self._pairs:
            parameter.data = value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for (parameter, _), saved in zip(self._pairs, self._saved, strict=True):
            parameter.data = saved
        self._saved = []


_STACKS: weakref.WeakKeyDictionary[nn.Module, Stack] = weakref.WeakKeyDictionary()


def stack_of(module: nn.Module) -> Stack:
    """The stack of a network, of which there is one however often the network is part of a model."""
    found = _STACKS.get(module)
    if found is None:
        found = _STACKS[module] = Stack(module)
    return found
