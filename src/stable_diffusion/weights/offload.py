"""The networks of a model in memory in turns: text encoders while they read, the denoiser while it denoises, the
autoencoder while it decodes.

On a GPU a network that is called is moved there, and those that rest go back to the machine's memory. On a CPU the
memory of networks that are views of files (see `converted`) is given back to the system when another one is called;
they are read from the file again when their turn comes. A network that a thread is still calling stays where it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from ..errors import unknown_choice
from ..mapped_pages import release

Offload: TypeAlias = Literal["auto", "none", "model"]
OFFLOADS: tuple[Offload, ...] = get_args(Offload)
BESIDE = 3 * 2**29
"""Bytes that a run needs beside the weights, as far as that is known before there is a request."""


def offloads(asked: Offload, weights: int, free: int | None) -> tuple[bool, str]:
    """Whether networks of so many bytes take turns, and one sentence on why; `free` bytes of memory are left, None
    where that is not known. InvalidRequest where `asked` is no choice."""
    if asked not in OFFLOADS:
        raise unknown_choice("offload", str(asked), OFFLOADS)
    said = f"weights take {weights / 2**30:.1f} GiB"
    if free is not None:
        said += f", {free / 2**30:.1f} GiB are free"
    if asked != "auto":
        return asked == "model", f"offload {asked}, as asked; {said}"
    short = free is not None and weights + BESIDE > free
    return short, f"offload {'model' if short else 'none'}: {said}"


class Turns:
    """Networks that are in memory in turns, on `device`."""

    def __init__(self, networks: Iterable[nn.Module], device: torch.device) -> None:
        self.device = device
        self._networks: Sequence[nn.Module] = tuple(networks)
        self._calls = [0] * len(self._networks)
        self._lock = threading.Lock()
        for index, network in enumerate(self._networks):
            # the two halves of an autoencoder are called, and not the whole
            called = list(network.children()) if hasattr(network, "decode") else [network]
            for module in called:
                module.register_forward_pre_hook(_Enter(self, index), with_kwargs=True)
                module.register_forward_hook(_Leave(self, index), always_call=True)

    def enter(self, index: int, called: nn.Module) -> None:
        """A network's turn has come; `called` is it, a half of it, or one that shares weights with it."""
        with self._lock:
            self._calls[index] += 1
            for other, network in enumerate(self._networks):
                if other != index and not self._calls[other]:
                    self.put_away(network)
            if self.device.type != "cpu":
                called.to(self.device)

    def leave(self, index: int) -> None:
        """A call has ended."""
        with self._lock:
            self._calls[index] -= 1

    def put_away(self, network: nn.Module) -> None:
        """Take a network out of the memory of the device."""
        if self.device.type == "cpu":
            release(each for each in network.parameters())
        else:
            network.to("cpu")


class _Enter:
    """The hook before a call: the network's turn begins, and its input is where the network is."""

    def __init__(self, turns: Turns, index: int) -> None:
        self._turns, self._index = turns, index

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        self._turns.enter(self._index, module)
        if self._turns.device.type == "cpu":
            return None
        return _placed(args, self._turns.device), _placed(kwargs, self._turns.device)


class _Leave:
    """The hook after a call."""

    def __init__(self, turns: Turns, index: int) -> None:
        self._turns, self._index = turns, index

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self._turns.leave(self._index)


def _placed(value: Any, device: torch.device) -> Any:
    """Tensors on the device, in plain lists, tuples and dictionaries too."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _placed(each, device) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_placed(each, device) for each in value)
    return value
