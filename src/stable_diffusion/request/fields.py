"""Numbers checked in one plain sentence each."""

from __future__ import annotations

import math
import operator
from typing import Any

from ..errors import InvalidRequest

MAX_SIDE = 8192


def whole(name: str, value: object, low: int, high: int) -> int | None:
    """A whole number in [low, high], or None where none is given."""
    if value is None:
        return None
    expected = f"expected a whole number from {low} to {high}"
    try:
        if isinstance(value, bool):
            raise TypeError
        index = operator.index(value)  # type: ignore[arg-type]  # raises TypeError, which is what is asked
    except TypeError:
        raise InvalidRequest(f"{name} is {value!r}; {expected}") from None
    if not low <= index <= high:
        raise InvalidRequest(f"{name} is {index}; {expected}")
    return index


def number(name: str, value: object, low: float, high: float) -> float | None:
    """A finite number in [low, high], or None where none is given."""
    if value is None:
        return None
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        real = float(value)  # type: ignore[arg-type]  # raises TypeError, which is what is asked
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"{name} is {value!r}; expected a number from {low:g} to {high:g}") from None
    if not math.isfinite(real) or not low <= real <= high:
        raise InvalidRequest(f"{name} is {real:g}; expected a number from {low:g} to {high:g}")
    return real


def whole_numbers(name: str, values: Any, count: int, low: int, form: str) -> list[int]:
    """`count` whole numbers from `low` to `MAX_SIDE`; `form` shows them, as in "(width, height)"."""
    expected = f"{name} is {values!r}; expected {count} whole numbers {form} from {low} to {MAX_SIDE}"
    try:
        if any(isinstance(value, bool) for value in values):
            raise TypeError
        found = [operator.index(value) for value in values]
    except TypeError:
        raise InvalidRequest(expected) from None
    if len(found) != count or not all(low <= value <= MAX_SIDE for value in found):
        raise InvalidRequest(expected)
    return found
