"""The OpenVINO engine: which networks are compiled, kept and dropped.

The first call in a shape converts the architecture (once, kept on the disk) and compiles it with the run's weights
(seconds). Compiled networks are kept by what their weights are, so that the next run, or the next picture with the same
LoRAs, starts at once; other weights are never mistaken for them.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.sharing import origin
from ..base import Engine, Features, Network, Part
from ..torch import TORCH
from .compiled import Compiled, Machine, computes_in_bfloat16
from .convert import convert, weights_of
from .library import openvino
from .mapped import digest, map_weights
from .store import Store

METHODS: dict[Part, str] = {"denoiser": "forward", "image_decoder": "decode"}
"""The parts that gain from it; others run on torch."""
KEPT = 3
"""Compiled networks in memory: a denoiser, its decoder, and one more (a second size, a refiner, a LoRA)."""
REFUSED = {
    "seamless": "joined edges",
    "image_prompt": "image prompts (IP-Adapter)",
    "residuals": "control networks",
    "attention_maps": "recording attention",
    "shortcuts": "steps that leave out work (speed, token merging)",
}


@dataclass(frozen=True)
class _Key:
    """What makes a compiled network: whose it is, its weights, and the shapes of a row of each input."""

    owner: int
    weights: str
    changed: bool
    method: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]


class OpenVINOEngine(Engine):
    """Runs denoisers and image decoders by OpenVINO on the CPU, a row of the batch at a time.

    precision  of products and convolutions: None is that of the network's weights, bfloat16 for float16. Where the
               processor has no bfloat16 it is float32
    store      where converted networks are kept; None is the user's cache folder
    kept       how many compiled networks stay in memory
    """

    name = "openvino"
    one_row = True

    def __init__(self, precision: torch.dtype | None = None, store: Store | None = None, kept: int = KEPT) -> None:
        super().__init__()
        self.precision = None if precision is None else str(precision).removeprefix("torch.")
        self._asked = precision
        self._store, self._kept = Store() if store is None else store, kept
        self._compiled: OrderedDict[_Key, Compiled] = OrderedDict()
        self._watched: set[int] = set()
        self._lock = threading.RLock()

    def network(self, module: nn.Module, part: Part) -> Network:
        if part not in METHODS or _device(module) != "cpu":
            return TORCH.network(module, part)
        return _Calls(self, module, METHODS[part], map_weights(origin(module), self._store))

    def refuses(self, features: Features) -> str | None:
        wanted = [REFUSED[name] for name in features.names if name in REFUSED]
        return f"the engine openvino does not have {' or '.join(wanted)}" if wanted else None

    def weights_changed(self, module: nn.Module) -> None:
        self._forget(id(origin(module)))

    def computes_in(self, module: nn.Module) -> torch.dtype:
        """The precision of a network's products and convolutions."""
        full = next((each.dtype == torch.float32 for each in weights_of(module).values()), True)
        wanted = (torch.float32 if full else torch.bfloat16) if self._asked is None else self._asked
        return wanted if computes_in_bfloat16() else torch.float32

    def compiled(self, module: nn.Module, method: str, weights: str, shapes: Mapping[str, tuple[int, ...]]) -> Compiled:
        """The module's method for rows of these shapes; made at the first call, while others wait."""
        owner = origin(module)
        key = _Key(id(owner), weights, owner is not module, method, tuple(shapes.items()))
        with self._lock:
            if key not in self._compiled:
                self._watch(owner)
                self._make_room(key)
                self._compiled[key] = self._make(module, method, shapes)
            self._compiled.move_to_end(key)
            return self._compiled[key]

    def _make(self, module: nn.Module, method: str, shapes: Mapping[str, tuple[int, ...]]) -> Compiled:
        machine = Machine(self.computes_in(module), torch.get_num_threads())
        return Compiled(self._graph(module, method, shapes), weights_of(module), machine)

    def _graph(self, module: nn.Module, method: str, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        """From the disk where it is there and whole; a disk that refuses costs time, and nothing else.

        A new graph is read back too: what OpenVINO makes of a graph that went through a file rounds differently.
        """
        ov = openvino()
        made: list[Any] = []

        def make(folder: Path) -> None:
            made[:] = made or [convert(module, method, shapes)]
            ov.save_model(made[0], folder / "graph.xml", compress_to_fp16=False)

        with suppress(OSError, RuntimeError):
            folder = self._store.entry(f"graph-{_architecture(module, method, shapes)}", make)
            return ov.Core().read_model(folder / "graph.xml")
        with suppress(OSError, RuntimeError), TemporaryDirectory(ignore_cleanup_errors=True) as other:
            make(Path(other))
            return ov.Core().read_model(Path(other) / "graph.xml")
        return made[0] if made else convert(module, method, shapes)

    def _make_room(self, key: _Key) -> None:
        """Before another is compiled, so that their weights are not in memory at once: the network with another LoRA
        goes, and what was used least recently."""
        for other in list(self._compiled):
            if (
                other.changed
                and (other.owner, other.method) == (key.owner, key.method)
                and other.weights != key.weights
            ):
                del self._compiled[other]
        while len(self._compiled) >= self._kept:
            self._compiled.popitem(last=False)

    def _watch(self, owner: nn.Module) -> None:
        if id(owner) not in self._watched:
            self._watched.add(id(owner))
            weakref.finalize(owner, _gone, weakref.ref(self), id(owner)).atexit = False

    def _forget(self, owner: int) -> None:
        with self._lock:
            for key in [key for key in self._compiled if key.owner == owner]:
                del self._compiled[key]


def _gone(engine: weakref.ref[OpenVINOEngine], owner: int) -> None:
    found = engine()
    if found is not None:
        found._watched.discard(owner)
        found._forget(owner)


@dataclass(eq=False)
class _Calls:
    """A module's method by its own signature. What its weights are is looked at once, when a run asks for it."""

    engine: OpenVINOEngine
    module: nn.Module
    method: str
    held: list[Tensor]
    """What calls of torch that were under way may still read; let go of after the first call."""
    weights: str = field(init=False)
    signature: inspect.Signature = field(init=False)

    def __post_init__(self) -> None:
        self.signature = inspect.signature(getattr(self.module, self.method))
        self.weights = _identity(self.module)

    def __call__(self, *arguments: Any, **named: Any) -> Tensor:
        """InvalidRequest of the module where an input does not fit it."""
        given = self.signature.bind(*arguments, **named).arguments
        inputs = {name: value for name, value in given.items() if value is not None}
        if not all(isinstance(value, Tensor) for value in inputs.values()):
            found: Tensor = getattr(self.module, self.method)(*arguments, **named)
            return found
        first = next(iter(inputs.values()))
        count = max(len(each) for each in inputs.values())
        rows = {name: each.expand(count, *each.shape[1:]) for name, each in inputs.items()}
        shapes = {name: (1, *each.shape[1:]) for name, each in rows.items()}
        answer = self.engine.compiled(self.module, self.method, self.weights, shapes)(rows).to(first.dtype)
        self.held.clear()
        return answer


def _device(module: nn.Module) -> str:
    return next((each.device.type for each in weights_of(module).values()), "cpu")


def _identity(module: nn.Module) -> str:
    """What tells a module's weights from others of the same network: those that are its own by their bits, those that
    it shares by where they are and how often they were written to."""
    shared = {id(each) for each in origin(module).parameters()}
    found, own = hashlib.sha256(), {}
    for name, each in module.named_parameters():
        if id(each) in shared:
            written = 0 if each.is_inference() else each._version
            found.update(f"{each.data_ptr()} {written} {each.dtype},".encode())
        else:
            own[name] = each.data
    return f"{found.hexdigest()[:16]}{digest(own)[:32]}"


def _architecture(module: nn.Module, method: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What a graph depends on: the module's class and settings, the shapes of weights and inputs, and the versions."""
    config = getattr(module, "config", None)
    weights = [(name, list(each.shape), each.is_floating_point()) for name, each in weights_of(module).items()]
    network = (type(module).__qualname__, method, repr(config), weights, list(shapes.items()))
    return hashlib.sha256(repr((network, openvino().__version__, torch.__version__, _source())).encode()).hexdigest()[
        :32
    ]


@functools.cache
def _source() -> str:
    """A hash of the code of all networks, since a graph is what that code did."""
    package, found = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted([*(package / "models").glob("*.py"), *(package / "nn").glob("*.py")]):
        found.update(path.read_bytes())
    return found.hexdigest()
