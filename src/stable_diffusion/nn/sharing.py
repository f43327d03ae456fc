"""The same network with a few tensors exchanged: module objects of its own over shared weights.

This is how a run has weights or layers of its own (a LoRA, image tokens beside the text) while others use the network:
nothing of the original is written to, so that there is nothing to lock and nothing to put back.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
_ORIGIN = "_shares_with"


def sharing(module: M, changed: Mapping[str, Tensor] | None = None) -> M:
    """The same network with the values in `changed` for the parameters of these names (those of `named_parameters`).

    All other parameters, the buffers and the hooks are the same objects, so that moving the original, or a hook on it,
    acts on both. A weight that occurs twice is exchanged in both places. Costs about ten microseconds for each of the
    network's modules, and no memory but that of `changed`.
    """
    own = dict(module.named_parameters())
    exchanged = {
        id(own[name]): nn.Parameter(value, requires_grad=own[name].requires_grad)
        for name, value in (changed or {}).items()
    }
    made: M = _shared(module, exchanged, {})  # type: ignore[assignment]  # of the class of `module`
    return made


def origin(module: nn.Module) -> nn.Module:
    """The network, or the part of one, that `module` shares its weights with; itself where it is no sharing one."""
    found = module.__dict__.get(_ORIGIN, module)
    if isinstance(found, weakref.ref):
        found = found() or module
    assert isinstance(found, nn.Module)
    return found


def with_layers(module: M, layer: Callable[[str, nn.Module], nn.Module | None]) -> M:
    """The same network with other layers: `layer(name, part)` gives what takes the place of a part, or None to keep it.

    Parameters, buffers and hooks of what is kept are the same objects. Unlike those of `sharing`, what is returned does
    not keep `module` alive, so that it may be remembered for as long as the module exists.
    """
    made: M = _with_layers("", module, layer, {})  # type: ignore[assignment]  # of the class of `module`
    return made


def _with_layers(
    name: str, module: nn.Module, layer: Callable[[str, nn.Module], nn.Module | None], known: dict[int, nn.Module]
) -> nn.Module:
    if id(module) in known:
        return known[id(module)]
    other = layer(name, module)
    if other is not None:
        known[id(module)] = other
        return other
    made = known[id(module)] = type(module).__new__(type(module))
    made.__dict__.update(module.__dict__)
    made.__dict__[_ORIGIN] = weakref.ref(origin(module))
    made.__dict__["_modules"] = {
        key: None if part is None else _with_layers(f"{name}.{key}" if name else key, part, layer, known)
        for key, part in module._modules.items()
    }
    return made


def _shared(module: nn.Module, exchanged: Mapping[int, nn.Parameter], known: dict[int, nn.Module]) -> nn.Module:
    if id(module) in known:
        return known[id(module)]
    made = known[id(module)] = type(module).__new__(type(module))
    # through __dict__, because Module.__setattr__ would register what is set
    made.__dict__.update(module.__dict__)
    made.__dict__[_ORIGIN] = origin(module)
    if any(id(each) in exchanged for each in module._parameters.values()):
        made.__dict__["_parameters"] = {
            name: None if each is None else exchanged.get(id(each), each) for name, each in module._parameters.items()
        }
    made.__dict__["_modules"] = {
        name: None if part is None else _shared(part, exchanged, known) for name, part in module._modules.items()
    }
    return made
