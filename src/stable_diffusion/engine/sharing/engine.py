"""The engine that shares network calls: another engine, whose denoising network is a rendezvous of the runs."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import torch
from torch import nn

from ...nn.sharing import origin
from ..base import Engine, Features, Network, Part
from .line import Waiting
from .mode import ShareMode
from .rendezvous import Rendezvous
from .rows import CallRows

_REFUSED = {
    "seamless": "edges that meet are made by the run itself",
    "image_prompt": "image prompts have networks of their own",
    "attention_maps": "attention is recorded by the run itself",
}


class SharingEngine(Engine):
    """Runs that go on at once in threads share calls of equal networks: same weights, latent size and kind of input.

    Rows of other calls never reach into a row's result. Of runs with LoRAs those with equal weights share. What the
    inner engine cannot share (`one_row`: it computes a row at a time in any case), and what is refused, runs on the
    inner engine alone, with a note. Decoders are computed by the same threads, in turn with the calls.
    """

    def __init__(self, inner: Engine, mode: ShareMode) -> None:
        super().__init__()
        self.wrapped, self.mode = inner, mode
        self.name, self.precision, self.sharing = inner.name, inner.precision, str(mode)
        self.rendezvous = Rendezvous(mode)
        self._known: weakref.WeakKeyDictionary[nn.Module, weakref.WeakSet[nn.Module]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def network(self, module: nn.Module, part: Part) -> Network:
        assert self.wrapped is not None
        same = self._with_equal_weights(module) if part == "denoiser" else module
        return _SharedNetwork(self.rendezvous, same, self.wrapped.network(same, part), shared=part == "denoiser")

    def refuses(self, features: Features) -> str | None:
        assert self.wrapped is not None
        if self.wrapped.one_row:
            return f"the engine {self.name} computes one row at a time"
        own = [_REFUSED[name] for name in features.names if name in _REFUSED]
        return own[0] if own else self.wrapped.refuses(features)

    def weights_changed(self, module: nn.Module) -> None:
        """Calls of runs that began before may hold the old weights, and are no longer joined with later ones."""
        with self._lock:
            self._known.pop(origin(module), None)

    @property
    def threads(self) -> int | None:
        """One where bits are not to depend on their number, and where other runs keep all cores busy, so that the parts
        of an operator would wait for each other."""
        return 1 if self.mode.kind == "fixed" or self.rendezvous.is_busy_apart() else None

    @property
    def together(self) -> int:
        """How many guided runs at once pay, as far as was measured; 1 before the first call."""
        return self.rendezvous.together

    def _with_equal_weights(self, module: nn.Module) -> nn.Module:
        """The network that was first asked for of those with the very same weights."""
        with self._lock:
            known = self._known.setdefault(origin(module), weakref.WeakSet())
            for other in known:
                if other is module or _equal(other, module):
                    return other
            known.add(module)
            return module


class _SharedNetwork:
    """A network as one run sees it. Calls that record gradients, or in which something listens to torch's functions,
    are the thread's own and do not leave it."""

    def __init__(self, rendezvous: Rendezvous, module: nn.Module, network: Network, *, shared: bool) -> None:
        self.rendezvous, self.module, self.network, self.shared = rendezvous, module, network, shared

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if torch.is_grad_enabled() or torch._C._len_torch_function_stack():
            return self.network(*arguments, **named)
        rows = CallRows.of(arguments, named) if self.shared else None
        return self.rendezvous.compute(Waiting(self.module, self.network, arguments, named, rows))


def _equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks of one origin have equal weights; those that both share are not compared."""
    if [type(each) for each in one.modules()] != [type(each) for each in other.modules()]:
        return False
    first, second = dict(one.named_parameters()), dict(other.named_parameters())
    return first.keys() == second.keys() and all(
        first[name] is each or torch.equal(first[name], each) for name, each in second.items()
    )


def shared(engine: Engine, mode: ShareMode) -> Engine:
    """The engine whose runs share calls; itself where they run alone."""
    return engine if mode.kind == "alone" else SharingEngine(engine, mode)
