"""Kinds of values that are several at once: sizes and margins in pixels, spans, names, and lists of things."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest
from .fields import Kind, Number

MAX_SIDE = 8192
_SIZE = re.compile(r"\s*(\d{1,6})(?:\s*[x×*]\s*(\d{1,6}))?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Pixels(Kind):
    """Whole numbers of pixels from `low`, each of which has a name: ("width", "height") is a size."""

    names: tuple[str, ...] = ("width", "height")
    low: int = 1

    @property
    def is_size(self) -> bool:
        return self.names == ("width", "height")

    @property
    def form(self) -> str:  # type: ignore[override]
        return "a size such as 512x768" if self.is_size else f"numbers for {', '.join(self.names)}"

    @property
    def expected(self) -> str:
        return f"{len(self.names)} whole numbers ({', '.join(self.names)}) from {self.low} to {MAX_SIDE}"

    def check(self, name: str, value: Any) -> tuple[int, ...]:
        wrong = InvalidRequest(f"{name} is {value!r}; expected {self.expected}")
        try:
            if any(isinstance(each, bool) for each in value):
                raise TypeError
            found = tuple(operator.index(each) for each in value)
        except TypeError:
            raise wrong from None
        if len(found) != len(self.names) or not all(self.low <= each <= MAX_SIDE for each in found):
            raise wrong
        return found

    def read(self, text: str) -> tuple[int, ...]:
        if not self.is_size:
            return tuple(int(part) for part in text.split(","))
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(text)
        return int(match[1]), int(match[2] if match[2] is not None else match[1])

    def write(self, value: Any) -> str:
        if self.is_size:
            return f"{value[0]}x{value[1]}"
        return " ".join(f"{name} {number}" for name, number in zip(self.names, value, strict=True))

    def plain(self, value: Any) -> list[int]:
        return list(value)

    def schema(self) -> dict[str, Any]:
        item = {"type": "integer", "minimum": self.low, "maximum": MAX_SIDE}
        return {"type": "array", "items": item, "minItems": len(self.names), "maxItems": len(self.names)}


@dataclass(frozen=True)
class Span(Kind):
    """Two rising numbers (first, last) from 0 to 1."""

    form = "two numbers from 0 to 1"

    def check(self, name: str, value: Any) -> tuple[float, float]:
        share = Number(0, 1)
        try:
            start, end = value
        except (TypeError, ValueError):
            raise InvalidRequest(f"{name} is {value!r}; expected two numbers (first, last) from 0 to 1") from None
        first, last = share.check(name, start), share.check(name, end)
        if first is None or last is None or first >= last:
            raise InvalidRequest(f"{name} is ({start}, {end}); expected the first to be less than the last")
        return first, last

    def read(self, text: str) -> tuple[float, ...]:
        return tuple(float(part) for part in text.replace(" to ", ",").split(","))

    def write(self, value: Any) -> str:
        return f"{value[0]} to {value[1]}"

    def plain(self, value: Any) -> list[float]:
        return list(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 2, "maxItems": 2}


@dataclass(frozen=True)
class Names(Kind):
    """Any number of names; one alone need not be in a list. As text they have commas between them."""

    scalar = str

    @property
    def expected(self) -> str:
        return "names"

    def check(self, name: str, value: Any) -> tuple[str, ...]:
        given: Any = (value,) if isinstance(value, str) else value
        found = tuple(given) if isinstance(given, Iterable) else (None,)
        if not all(isinstance(each, str) for each in found):
            raise InvalidRequest(f"{name} is {value!r}; expected names")
        return found

    def read(self, text: str) -> tuple[str, ...]:
        return tuple(name.strip() for name in text.split(",") if name.strip())

    def plain(self, value: Any) -> list[str]:
        return list(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string"}}


@dataclass(frozen=True)
class Items(Kind):
    """Any number of things of one class: `of` makes them from what was given, and `written` makes JSON of one."""

    of: Callable[[Any], tuple[Any, ...]]
    item: dict[str, Any]
    written: Callable[[Any], Any] = str

    def check(self, name: str, value: Any) -> tuple[Any, ...]:
        return self.of(value)

    def read(self, text: str) -> tuple[str, ...]:
        return (text,)

    def plain(self, value: Any) -> list[Any]:
        return [self.written(each) for each in value]

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item}
