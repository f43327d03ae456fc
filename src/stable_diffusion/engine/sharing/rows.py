"""A call of a denoising network as rows that can be joined with those of other calls, and taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ...types import Residuals

POSITIONAL = ("x", "timestep", "tokens")
NAMED = ("vector", "guidance")
Shape: TypeAlias = tuple[tuple[str, tuple[int, ...], torch.dtype, torch.device], ...]
"""Of each tensor of a call: its name, the shape of a row, its type, and where it is."""


@dataclass(frozen=True, eq=False)
class CallRows:
    """The arguments of a call, each with as many rows as there are pictures in it; those of `Residuals` by number."""

    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, arguments: Sequence[Any], named: Mapping[str, Any]) -> CallRows | None:
        """None where an argument is not known to have rows, so that the call cannot be shared."""
        given = {**dict(zip(POSITIONAL, arguments, strict=False)), **named}
        residuals = given.pop("residuals", None)
        found = {name: value for name, value in given.items() if value is not None}
        if len(arguments) > len(POSITIONAL) or not set(found) <= {*POSITIONAL, *NAMED}:
            return None
        if residuals is not None:
            found |= {f"down {index}": each for index, each in enumerate(residuals.down)}
            found |= {f"stages {index}": each for index, each in enumerate(residuals.stages)}
            found |= {} if residuals.mid is None else {"mid": residuals.mid}
        count = len(found["x"]) if isinstance(found.get("x"), Tensor) else 0
        if not count or not all(
            isinstance(each, Tensor) and each.ndim and len(each) == count for each in found.values()
        ):
            return None
        return cls(found)

    @property
    def count(self) -> int:
        return len(self.tensors["x"])

    @property
    def shape(self) -> Shape:
        """What calls must agree in to be joined."""
        return tuple((name, tuple(each.shape[1:]), each.dtype, each.device) for name, each in self.tensors.items())

    def part(self, first: int, last: int) -> CallRows:
        """Rows from `first` up to, not including, `last`."""
        return CallRows({name: each[first:last] for name, each in self.tensors.items()})

    def filled(self, count: int) -> CallRows:
        """With copies of the first row to `count` rows."""
        lack = count - self.count
        return self if lack <= 0 else CallRows.joined([self, *[self.part(0, 1)] * lack])

    @staticmethod
    def joined(parts: Sequence[CallRows]) -> CallRows:
        """The rows of several calls of one shape."""
        return CallRows({name: torch.cat([each.tensors[name] for each in parts]) for name in parts[0].tensors})

    def arguments(self) -> tuple[list[Tensor], dict[str, Any]]:
        """What the network is called with."""
        named: dict[str, Any] = {name: self.tensors[name] for name in NAMED if name in self.tensors}
        down, stages = self._numbered("down"), self._numbered("stages")
        if down or stages or "mid" in self.tensors:
            named["residuals"] = Residuals(down=down, mid=self.tensors.get("mid"), stages=stages)
        return [self.tensors[name] for name in POSITIONAL], named

    def _numbered(self, kind: str) -> tuple[Tensor, ...]:
        return tuple(each for name, each in self.tensors.items() if name.startswith(f"{kind} "))
