"""What all groups of a request's settings share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..errors import InvalidRequest, unknown_choice


@dataclass(frozen=True, kw_only=True)
class Group:
    """What all groups share: made from themselves, from a mapping of their fields, or changed by one."""

    def _replace(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_flags(self, *names: str) -> None:
        for name in names:
            if not isinstance(getattr(self, name), bool):
                raise InvalidRequest(f"{name} is {getattr(self, name)!r}; expected True or False")

    @classmethod
    def of(cls, value: object, name: str, base: Self | None = None) -> Self:
        """The group itself, or `base` (by default the group's own defaults) with the fields of a mapping."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise InvalidRequest(f"{name} is {value!r}; expected {cls.__name__}(...) or a mapping of its fields")
        known = [field.name for field in dataclasses.fields(cls)]
        for key in value:
            if key not in known:
                raise unknown_choice(f"setting of {name}", key, known)
        return cls(**value) if base is None else dataclasses.replace(base, **value)
