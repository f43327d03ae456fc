"""Networks without memory: their names and shapes, for weights that come from a file.

A constructor fills its weights with random numbers, which the file's own replace. Even without memory (on `meta`) that
takes time: the first random fill there makes torch import its compiler, which costs a process more than a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Network = TypeVar("Network", bound=nn.Module)

_FILLS = frozenset(
    {
        *(Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_),
        *(nn.init.normal_, nn.init.uniform_, nn.init.constant_, nn.init.kaiming_uniform_, nn.init.trunc_normal_),
    }
)


class _WithoutFilling(TorchFunctionMode):
    """Calls that fill a tensor in place leave it as it is."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {} if kwargs is None else kwargs
        if func in _FILLS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def skeleton(make: Callable[[], Network]) -> Network:
    """The network of `make` on `meta`: names, shapes and dtypes of its weights, and no numbers."""
    with torch.device("meta"), _WithoutFilling():
        return make()
