"""Settings as tables: TOML and "key=value" pairs to (nested) dataclasses and back, with errors that name the key."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InvalidRequest, unknown_choice

T = TypeVar("T")


def read_toml(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"cannot read the training config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the training config {path} is not TOML: {error}") from None


def build(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """A (nested) dataclass from a table; lists become tuples; errors name `where`, the key and the nearest key."""
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    names = [item.name for item in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in names:
            raise unknown_choice(f"key in {where}", key, names)
        values[key] = _fit(value, hints[key], f"{where}.{key}")
    return typing.cast(T, cls(**values))


def to_table(config: Any) -> dict[str, Any]:
    """The inverse of `build`, ready for JSON (tuples become lists)."""
    return {
        item.name: to_table(value) if dataclasses.is_dataclass(value) else _plain(value)
        for item in dataclasses.fields(config)
        for value in [getattr(config, item.name)]
    }


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _fit(value: Any, hint: Any, where: str) -> Any:
    """`value` as the annotated type, or InvalidRequest."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return build(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        for option in arguments:
            try:
                return _fit(value, option, where)
            except InvalidRequest:
                continue
    elif origin is tuple and isinstance(value, (list, tuple)):
        inner = arguments[0] if arguments else Any
        if (len(arguments) == 2 and arguments[1] is Ellipsis) or len(arguments) == len(value):
            return tuple(_fit(item, inner, where) for item in value)
    elif hint is Any or (origin is dict and isinstance(value, Mapping)):
        return dict(value) if isinstance(value, Mapping) else value
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    expected = getattr(hint, "__name__", None) if origin is None else str(hint)
    raise InvalidRequest(f"{where} = {value!r} has the wrong type: expected {expected or hint}")


def parse_pair(pair: str) -> tuple[str, Any]:
    """ "key=value" with the value read as TOML, or as a bare string where it is no TOML value."""
    key, separator, text = pair.partition("=")
    if not separator or not key.strip():
        raise InvalidRequest(f"override {pair!r} is not of the form key=value")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return key.strip(), value


def put(table: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise InvalidRequest(f"override {'.'.join(path)!r}: {name!r} is not a table")
    table[path[-1]] = value
