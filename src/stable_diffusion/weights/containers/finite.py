"""Numbers that are not finite (NaN, infinite) in weights: found when a network is first used, by `info --check`, and
when a model is converted.

Loading does not look for them, because weights that stay views of a mapped file are not read before they are used, and
those of a network that is never used not at all. The first call of a network looks at all its weights once, in a pass
of minimum and maximum that costs about a tenth of casting them; what a file holds beside them (averaged weights,
position numbers) is never looked at. A compiled network is looked at whenever it is traced.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import BrokenModel
from .tensors import TensorFile

_SUMMED = {torch.float16, torch.bfloat16, torch.float32}
LISTED = 3
"""How many tensors an error or a note names."""


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinite numbers, in their order; one wait for each device."""
    ends: dict[tuple[torch.device, torch.dtype], tuple[list[str], list[Tensor]]] = {}
    for name, tensor in tensors.items():
        if tensor.numel() and not tensor.is_meta and (tensor.is_floating_point() or tensor.is_complex()):
            if _has_finite_sum(tensor.detach()):
                continue
            low, high = _ends(tensor.detach())
            names, found = ends.setdefault((low.device, low.dtype), ([], []))
            names.append(name)
            found += [low, high]
    bad: set[str] = set()
    for names, found in ends.values():
        finite = torch.isfinite(torch.stack(found)).view(-1, 2).all(dim=1)  # [names]
        bad.update(name for name, fine in zip(names, finite.tolist(), strict=True) if not fine)
    return [name for name in tensors if name in bad]


def not_finite_in(tensors: TensorFile) -> list[str]:
    """Names of the tensors of a file that hold NaN or infinite numbers; one of them at a time is in memory."""
    return [name for name in tensors if not_finite({name: tensors[name]})]


def _has_finite_sum(tensor: Tensor) -> bool:
    """Whether the sum of a CPU's tensor is finite, and with it every number, which takes half the time of looking for
    the ends; a sum that is not may have left the range of the dtype, and says nothing."""
    if tensor.device.type != "cpu" or tensor.dtype not in _SUMMED:
        return False
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)  # the order in memory: other orders take several times as long
    return math.isfinite(float(tensor.sum()))


def _ends(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest number, each []: both are NaN where any is."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.dtype.itemsize == 1:  # 8-bit floats have no arithmetic
        tensor = tensor.float()
    low, high = torch.aminmax(tensor)
    return low, high


class _FirstUse:
    """A hook before the calls of a network, or a part of it, which looks at its weights before the first one.

    It stays where it is: removing it while it runs, or from a copy of the network, would need the module's internals.
    """

    def __init__(
        self, module: nn.Module, what: str, names: Mapping[str, Sequence[str]], prefix: str = "", *, done: bool = False
    ) -> None:
        self.what, self.names, self.prefix, self.done = what, names, prefix, done
        # A tracer may only call what takes no argument but the hook, which therefore knows its module.
        self.module: weakref.ref[nn.Module] | None = weakref.ref(module)

    def __call__(self, module: nn.Module, inputs: object) -> None:
        if self.done or (torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()):
            return
        if torch.compiler.is_dynamo_compiling():
            # Code that has asked for `id` is run for this hook alone, and not for every network of these shapes. `done`
            # stays, because code is compiled again where what it has read is changed.
            problem = self.problem_when_traced() if id(self) else ""
        else:
            problem = self.problem(module)
            self.done = not problem
        if problem:
            raise BrokenModel(problem)

    def problem_when_traced(self) -> str:
        """What is wrong with the weights, found out while the call is traced; the graph holds nothing of it."""
        module = None if self.module is None else self.module()
        return "" if module is None else self.problem(module)

    # What the decorator `torch.compiler.assume_constant_result` sets; the decorator itself imports the compiler, which
    # costs every process a second.
    problem_when_traced._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def problem(self, module: nn.Module) -> str:
        """The sentence about weights that are not finite, empty where all are."""
        stored, example = self.stored(module)
        return "" if example is None else not_finite_message(self.what, stored, example)

    def stored(self, module: nn.Module) -> tuple[list[str], Tensor | None]:
        """The names in the file of the tensors that are not finite, and the first of them."""
        state = {self.prefix + name: tensor for name, tensor in module.state_dict().items()}
        bad = not_finite(state)
        names = dict.fromkeys(" or ".join(self.names.get(name, [name])) for name in bad)
        return list(names), state[bad[0]] if bad else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "module": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> _FirstUse:
        made, module = copy.copy(self), None if self.module is None else self.module()
        made.module = None if module is None else weakref.ref(memo.get(id(module), module))
        return made


def check_at_first_use(
    network: nn.Module, what: str, names: Mapping[str, Sequence[str]], *, done: bool = False
) -> None:
    """Let the first call of a network raise BrokenModel where it holds numbers that are not finite.

    `what` names network and file, `names` maps each of our names to those in the file. An autoencoder is looked at by
    halves, since a picture that is only decoded does not need the encoder. `done` says that they are known to be
    finite: then the network has the same hooks as others, which look at nothing.
    """
    if not hasattr(network, "decode"):
        network.register_forward_pre_hook(_FirstUse(network, what, names, done=done))
        return
    for name, part in network.named_children():
        part.register_forward_pre_hook(_FirstUse(part, what, names, f"{name}.", done=done))


def check_now(network: nn.Module) -> Iterator[tuple[str, list[str]]]:
    """(network and file, names in the file of the tensors that are not finite) of a loaded network; nothing where all
    its numbers are finite. It is not used by that: its first call looks once more."""
    found: dict[str, list[str]] = {}
    for part in network.modules():
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, _FirstUse):
                found.setdefault(hook.what, []).extend(hook.stored(part)[0])
    yield from ((what, names) for what, names in found.items() if names)


def not_finite_message(what: str, names: Sequence[str], example: Tensor | None = None) -> str:
    """The sentence about tensors that are not finite; `example` is one of them, where it may be one cast too narrow."""
    listed = ", ".join(names[:LISTED])
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    tensors = "the tensor" if len(names) == 1 else "the tensors"
    text = f"{what} has numbers that are not finite (NaN or infinite) in {tensors} {listed}{more}"
    narrow = example is not None and example.dtype == torch.float16 and not bool(example.isnan().any())
    return f"{text}; float16 may be too narrow for them: load it with dtype='float32'" if narrow else text


def check_while_reading(file: TensorFile, bad: list[str]) -> TensorFile:
    """The same tensors without their numbers (on `meta`); the names of those not finite join `bad` when they are read.

    What is loaded from it reads as much as loading does, and holds one tensor at a time.
    """

    def read(name: str) -> Tensor:
        tensor = file[name]
        bad.extend(not_finite({name: tensor}))
        return tensor.to("meta")

    return TensorFile(file.path, {name: file.info(name) for name in file}, read, file.kind)
