"""What the configs of all architectures share: conversion to and from plain tables (JSON), and checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from ..errors import InvalidRequest, unknown_choice


class ModelConfig:
    """Base of the frozen config dataclasses."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; tuples become lists."""
        assert dataclasses.is_dataclass(self)
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {name: _lists(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; InvalidRequest names a key that this architecture does not have."""
        assert dataclasses.is_dataclass(cls)
        known = [item.name for item in dataclasses.fields(cls)]
        for name in table:
            if name not in known:
                raise unknown_choice(f"key in a {cls.__name__}", name, known)
        return cls(**{name: tuples(value) for name, value in table.items()})


def _lists(value: Any) -> Any:
    """Tuples as JSON's lists, at every depth."""
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def tuples(value: Any) -> Any:
    """JSON's lists as tuples, at every depth."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


def per_stage(what: str, value: int | tuple[int, ...], stages: int, *, least: int) -> tuple[int, ...]:
    """One number, at least `least`, for each stage, from one number for all or a tuple of the right length."""
    values = (value,) * stages if isinstance(value, int) else tuple(value)
    if len(values) != stages:
        raise InvalidRequest(f"{what} is {values}, {len(values)} numbers; expected one for each of the {stages} stages")
    if min(values) < least:
        raise InvalidRequest(f"{what} is {value}; expected at least {least} in every stage")
    return values


def check_divisible(what: str, number: int, divisor: int, why: str) -> None:
    """InvalidRequest where `number` is not a positive multiple of `divisor`; names the nearest one that is."""
    if divisor < 1:
        raise InvalidRequest(f"{why} is {divisor}; expected a positive number")
    if number < 1 or number % divisor:
        close = max(divisor, round(number / divisor) * divisor)
        raise InvalidRequest(f"{what} is {number}; expected a multiple of {divisor} ({why}), the nearest is {close}")
