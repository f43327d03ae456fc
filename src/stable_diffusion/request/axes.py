"""X/Y/Z grids: every combination of the values of some settings.

An axis is written NAME=A,B,C: values with a comma stand in double quotes, numbers may be ranges ("1-4", "1-9 (+2)",
"1-9 [5]", the last one five numbers evenly spread). The axis `prompt` searches for its first value in the prompt and
replaces it by each of its values. Every setting of one value is an axis, by the name of its option.
"""

from __future__ import annotations

import csv
import functools
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest, brief, unknown_choice
from .group import Setting
from .request import Request, all_settings

REPLACED = ("prompt", "negative_prompt")
"""Settings in which the first value is searched for and replaced."""
MAX_CELLS, MAX_VALUES = 400, 64
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\s*-\s*(-?\d+(?:\.\d+)?)(?:\s*\((\+?-?\d+(?:\.\d+)?)\)|\s*\[(\d+)\])?")


@functools.cache
def settings_by_axis() -> dict[str, Setting]:
    """Name of an axis -> its setting."""
    found: dict[str, Setting] = {}
    for each in all_settings():
        if each.is_axis:
            for name in each.names:
                found.setdefault(name.replace("_", "-"), each)
    return found


@dataclass(frozen=True)
class Axis:
    """A setting and its values."""

    name: str
    values: tuple[Any, ...]

    @staticmethod
    def parse(text: str) -> Axis:
        """ "steps=10,20" -> that axis. InvalidRequest for an unknown name or a value of another kind."""
        name, sign, values = text.partition("=")
        name = name.strip().lower().replace("_", "-")
        axes = settings_by_axis()
        if not sign or name not in axes:
            raise unknown_choice("axis", name if sign else text, axes)
        words = next(csv.reader([values], skipinitialspace=True), [])
        found = [value for word in words for value in values_of(name, word.strip(), axes[name].kind.scalar or str)]
        if not found or len(found) > MAX_VALUES:
            raise InvalidRequest(f"the axis {name!r} has {len(found)} values; expected 1 to {MAX_VALUES}")
        return Axis(name, tuple(found))

    def applied(self, request: Request, value: Any) -> Request:
        """The request with this value."""
        setting = settings_by_axis()[self.name]
        if setting.path in REPLACED:
            text, searched = setting.of(request), str(self.values[0])
            if searched not in text:
                raise InvalidRequest(f"{searched!r} is not in the {self.name}; the first value is what is replaced")
            value = text.replace(searched, str(value))
        changes: dict[str, Any] = {}
        setting.put(changes, value)
        return request.with_changes(**changes)

    def label(self, value: Any) -> str:
        return f"{self.name} {value:g}" if isinstance(value, float) else f"{self.name} {value}"


def values_of(name: str, word: str, kind: type) -> list[Any]:
    """The values of one word of an axis: itself, or those of a range. InvalidRequest where it is no number."""
    span = _RANGE.fullmatch(word) if kind is not str else None
    if span is None:
        try:
            value = kind(word)
            if kind is float and not math.isfinite(value):
                raise ValueError
            return [value]
        except ValueError:
            expected = "a whole number" if kind is int else "a number"
            raise InvalidRequest(f"the axis {name!r} has the value {brief(word, 60)!r}; expected {expected}") from None
    first, last = float(span[1]), float(span[2])
    if span[4] is not None:
        count = min(int(span[4]), MAX_VALUES + 1)
        found = [first + (last - first) * i / max(1, count - 1) for i in range(count)]
    else:
        step = abs(float(span[3])) if span[3] is not None else 1.0
        if step == 0:
            raise InvalidRequest(f"the axis {name!r} has the range {word!r} with steps of 0; expected more")
        count = min(int(abs(last - first) / step + 1e-9), MAX_VALUES) + 1
        found = [first + (step if last >= first else -step) * i for i in range(count)]
    return [kind(round(value)) if kind is int else round(value, 10) for value in found]


@dataclass(frozen=True)
class Grid:
    """Columns, rows and blocks of cells; an axis without values is left out."""

    x: Axis | None = None
    y: tuple[Axis, ...] = ()
    z: Axis | None = None

    def cells(self, base: Request) -> list[Request]:
        """The requests in reading order, block by block. InvalidRequest where there are too many."""
        if (count := len(self.columns) * len(self.rows) * len(self.blocks)) > MAX_CELLS:
            raise InvalidRequest(f"the grid has {count} pictures: expected at most {MAX_CELLS}")
        return [
            self._made(base, {**block, **row, **column})
            for block, row, column in itertools.product(self.blocks, self.rows, self.columns)
        ]

    @property
    def columns(self) -> list[dict[Axis, Any]]:
        return _combined([] if self.x is None else [self.x])

    @property
    def rows(self) -> list[dict[Axis, Any]]:
        return _combined(self.y)

    @property
    def blocks(self) -> list[dict[Axis, Any]]:
        return _combined([] if self.z is None else [self.z])

    def _made(self, base: Request, values: Mapping[Axis, Any]) -> Request:
        for axis, value in values.items():
            base = axis.applied(base, value)
        return base

    @property
    def labels(self) -> tuple[list[str], list[str], list[str]]:
        """What columns, rows and blocks say: "sampler euler, steps 10"."""
        columns, rows, blocks = ([_label(values) for values in side] for side in (self.columns, self.rows, self.blocks))
        return columns, rows, blocks


def _combined(axes: Sequence[Axis]) -> list[dict[Axis, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def _label(values: Mapping[Axis, Any]) -> str:
    """What a column, row or block says: "sampler euler, steps 10"."""
    return ", ".join(axis.label(value) for axis, value in values.items())


def plain(values: Mapping[Axis, Any]) -> dict[str, Any]:
    """The same for JSON."""
    return {axis.name: value for axis, value in values.items()}
