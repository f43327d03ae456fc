"""The strict loader: a network with exactly the tensors of a file, or one error that lists what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import BrokenModel
from .arena import Arena, room_for
from .containers.finite import check_at_first_use
from .containers.tensors import TensorFile
from .converted import Conversion, read_or_write, write_later
from .keys import KeyTable, own_names
from .skeleton import skeleton

Network = TypeVar("Network", bound=nn.Module)
Shape = tuple[int, ...]

LISTED = 10
"""How many names of each kind an error lists."""


class Prefixed(Mapping[str, Tensor]):
    """The tensors of a file whose names begin with a prefix, under their names without it; read when asked for.

    Names that, without the prefix, begin with one of `drop` are left out.
    """

    def __init__(self, file: TensorFile, prefix: str = "", drop: tuple[str, ...] = ()) -> None:
        self.file, self.prefix, self.drop = file, prefix, drop
        names = {name[len(prefix) :]: name for name in file if name.startswith(prefix)}
        self._names = {short: name for short, name in names.items() if not short.startswith(drop)}

    def shape(self, name: str) -> Shape:
        return self.file.info(self._names[name]).shape

    def shapes(self) -> dict[str, Shape]:
        """Name -> shape of every tensor, none of which is read."""
        return {name: self.shape(name) for name in self}

    def dtype(self, name: str) -> torch.dtype:
        """Dtype of a tensor, which is not read."""
        return self.file.info(self._names[name]).dtype

    def release(self, name: str) -> None:
        """A copy of the tensor was made; see `TensorFile.release`."""
        self.file.release(self._names[name])

    def origins(self) -> tuple[Path, ...]:
        """The files that the tensors are in."""
        return tuple(sorted({self.file.origin(name) for name in self._names.values()}))

    def full_name(self, name: str) -> str:
        """The name in the file, and which file that is where it is not the one of the others."""
        full = self._names[name]
        origin = self.file.origin(full)
        return full if origin == self.file.path else f"{full} of {origin}"

    def __getitem__(self, name: str) -> Tensor:
        return self.file[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def build(
    make: Callable[[], Network],
    tensors: Mapping[str, Tensor],
    table: KeyTable | None,
    *,
    what: str,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    mapped: bool = False,
) -> Network:
    """The network of `make` with `tensors` in the layout of `table`, cast and moved once, in evaluation mode; without
    a table they have the network's own names.

    It is built without memory, its names and shapes are compared with those of the file, and then its parameters are
    the file's tensors; `dtype` None keeps each tensor's own. BrokenModel lists what is missing, unexpected, and of
    another shape. `what` names the network and the file in that message. Gradients are off; training switches them on
    where it wants them. Numbers that are not finite are found at the first use (see `finite`). A large network that
    was cast before is mapped from the disk (see `converted`); `mapped` sees to it that it is.
    """
    network = skeleton(make)
    table = own_names(network) if table is None else table
    expected = {name: tuple(tensor.shape) for name, tensor in table.invert(network.state_dict()).items()}
    problems = compare(expected, {name: _shape(tensors, name) for name in tensors}, table)
    if problems:
        raise BrokenModel(f"{what} does not fit: {'; '.join(problems)}")
    kept = _conversion(network, tensors, table, dtype, torch.device(device))
    state = None if kept is None else read_or_write(kept) if mapped else kept.read()
    known = state is not None  # to be finite: other weights are not kept
    if state is None:
        cast = _Cast(network, tensors, dtype, torch.device(device))
        state = table.convert(tensors, cast, cast.release)
        if kept is not None:
            write_later(kept)
    network.load_state_dict(state, strict=True, assign=True)
    full_name = tensors.full_name if isinstance(tensors, Prefixed) else str
    sources = {ours: [full_name(name) for name in theirs] for ours, theirs in table.sources(tensors).items()}
    check_at_first_use(network, what, sources, done=known)
    return network.eval().requires_grad_(False)


def _conversion(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    table: KeyTable,
    dtype: torch.dtype | None,
    device: torch.device,
) -> Conversion | None:
    """What the network is kept as on the disk; None where nothing is cast, or it is not worth a file."""
    if not isinstance(tensors, Prefixed) or device.type != "cpu" or dtype is None:
        return None
    if all(tensors.dtype(name) == dtype for name in tensors):
        return None
    found = Conversion(
        tensors=tensors,
        release=tensors.release,
        table=table,
        shapes={name: tuple(tensor.shape) for name, tensor in network.state_dict().items()},
        dtype=dtype,
        channels_last=computes_channels_last(dtype),
        origins=tensors.origins(),
    )
    try:
        return found if found.wanted and found.path else None
    except OSError:
        return None


def computes_channels_last(dtype: torch.dtype) -> bool:
    """Whether convolutions in this type have their weights in channels_last on the CPU, as `engine.cpu_layers` wants
    them: the same numbers, ordered once while they are cast."""
    return dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Cast:
    """Weights as they are used: of one dtype, on one device. What is copied for that is let go of in the file."""

    def __init__(
        self, network: nn.Module, tensors: Mapping[str, Tensor], dtype: torch.dtype | None, device: torch.device
    ) -> None:
        self._network, self._tensors, self._dtype, self._device = network, tensors, dtype, device
        self._arena: Arena | None = None

    def __call__(self, tensor: Tensor) -> Tensor:
        if self._dtype in (None, tensor.dtype) or self._device.type != "cpu":
            return tensor.to(device=self._device, dtype=self._dtype)
        assert self._dtype is not None
        if self._arena is None:
            self._arena = Arena(room_for(list(self._network.state_dict().values()), self._dtype))
        kernel = tensor.ndim == 4 and tensor.shape[2:].numel() > 1
        return self._arena.cast(tensor, self._dtype, channels_last=kernel and computes_channels_last(self._dtype))

    def release(self, name: str) -> None:
        if isinstance(self._tensors, Prefixed):
            copied = self._device.type != "cpu" or self._tensors.dtype(name) != self._dtype
            if copied and self._dtype is not None:
                self._tensors.release(name)


def compare(expected: Mapping[str, Shape], found: Mapping[str, Shape], table: KeyTable) -> list[str]:
    """What is wrong with the names and shapes of a file, one line for each kind of fault; empty where all is well."""
    missing, unexpected = table.compare(found)
    faults = [*_fault("missing", missing), *_fault("unexpected", unexpected)]
    resolved = {table.aliases.get(name, name): shape for name, shape in found.items()}
    wrong = [
        f"{name} {list(resolved[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in resolved and not _same_shape(resolved[name], shape)
    ]
    return faults + _fault("of the wrong shape", wrong)


def _fault(fault: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    verb = "tensor is" if len(names) == 1 else "tensors are"
    return [f"{len(names)} {verb} {fault}: {', '.join(names[:LISTED])}{more}"]


def _same_shape(found: Shape, expected: Shape) -> bool:
    """Equal, but for a 1x1 convolution stored as a matrix, which the key tables take as well."""
    return found == expected or (len(expected) == 4 and expected[2:] == (1, 1) and found == expected[:2])


def _shape(tensors: Mapping[str, Tensor], name: str) -> Shape:
    """Shape without reading the tensor, where the mapping knows it."""
    return tensors.shape(name) if isinstance(tensors, Prefixed) else tuple(tensors[name].shape)
