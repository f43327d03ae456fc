"""Numbers that are not finite (NaN, infinite) in weights: found when a network is first used, or by `info --check`.

Loading does not look for them, because weights that stay views of a mapped file are not read before they are used, and
those of a network that is never used not at all. The first call of a network looks at all its weights once, in a pass
of minimum and maximum that costs about a tenth of casting them; what a file holds beside them (averaged weights,
position numbers) is never looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import BrokenModel
from .tensors import TensorFile

LISTED = 3
"""How many tensors an error names."""


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinite numbers, in their order; one wait for each device."""
    ends: dict[tuple[torch.device, torch.dtype], tuple[list[str], list[Tensor]]] = {}
    for name, tensor in tensors.items():
        if tensor.numel() and not tensor.is_meta and (tensor.is_floating_point() or tensor.is_complex()):
            low, high = _ends(tensor.detach())
            names, found = ends.setdefault((low.device, low.dtype), ([], []))
            names.append(name)
            found += [low, high]
    bad: set[str] = set()
    for names, found in ends.values():
        finite = torch.isfinite(torch.stack(found)).view(-1, 2).all(dim=1)  # [names]
        bad.update(name for name, fine in zip(names, finite.tolist(), strict=True) if not fine)
    return [name for name in tensors if name in bad]


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

    def __init__(self, what: str, names: Mapping[str, Sequence[str]], prefix: str = "") -> None:
        self.what, self.names, self.prefix, self.done = what, names, prefix, False

    def __call__(self, module: nn.Module, inputs: object) -> None:
        if self.done or torch.compiler.is_compiling():
            return
        state = {self.prefix + name: tensor for name, tensor in module.state_dict().items()}
        bad = not_finite(state)
        if bad:
            stored = list(dict.fromkeys(" or ".join(self.names.get(name, [name])) for name in bad))
            raise BrokenModel(complaint(self.what, stored, state[bad[0]]))
        self.done = True


def check_at_first_use(network: nn.Module, what: str, names: Mapping[str, Sequence[str]]) -> None:
    """Let the first call of a network raise BrokenModel where it holds numbers that are not finite.

    `what` names network and file, `names` maps each of our names to those in the file. An autoencoder is looked at by
    halves, since a picture that is only decoded does not need the encoder.
    """
    if not hasattr(network, "decode"):
        network.register_forward_pre_hook(_FirstUse(what, names))
        return
    for name, part in network.named_children():
        part.register_forward_pre_hook(_FirstUse(what, names, f"{name}."))


def complaint(what: str, names: Sequence[str], example: Tensor) -> str:
    """The sentence about tensors that are not finite."""
    listed = ", ".join(names[:LISTED])
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    tensors = "the tensor" if len(names) == 1 else "the tensors"
    text = f"{what} has numbers that are not finite (NaN or infinite) in {tensors} {listed}{more}"
    narrow = example.dtype == torch.float16 and not bool(example.isnan().any())
    return f"{text}; float16 may be too narrow for them: load it with dtype='float32'" if narrow else text


def watched(file: TensorFile, bad: list[str]) -> TensorFile:
    """The same tensors without their numbers (on `meta`); the names of those not finite join `bad` when they are read.

    What is loaded from it reads as much as loading does, and holds one tensor at a time.
    """

    def read(name: str) -> Tensor:
        tensor = file[name]
        bad.extend(not_finite({name: tensor}))
        return tensor.to("meta")

    return TensorFile(file.path, {name: file.info(name) for name in file}, read, file.kind)
