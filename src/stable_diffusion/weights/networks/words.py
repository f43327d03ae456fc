"""Settings in a `config.json` of diffusers or transformers, as tables whose rows are both read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...errors import BrokenModel

Words = Mapping[str, Any]
"""A parsed `config.json`."""
Fixed = Mapping[str, tuple[Any, ...]]
"""Setting -> the values that we run, the default first."""

VERSION = "0.30.0"
"""The `_diffusers_version` of what is written: a version that knows every setting in it."""
REQUIRED = object()


class Word(NamedTuple):
    """A setting under their name and ours.

    theirs   its name in the config.json
    ours     the field of our config, or, for what is written alone, a value or a function of the config
    default  what it is where the file leaves it out; a default of None is not written
    kind     "number" is a whole number from 1, "list" a list there and a tuple here, "any" is taken as it stands
    """

    theirs: str
    ours: str | Callable[[Any], Any]
    default: Any = REQUIRED
    kind: Literal["any", "number", "list", "flag"] = "any"


def constant(theirs: str, value: Any) -> Word:
    """A setting that is written with one value."""
    return Word(theirs, lambda config: value)


def read_words(table: Sequence[Word], words: Words, where: Path) -> dict[str, Any]:
    """Our fields -> values of a config.json; BrokenModel names a setting without a default that is missing."""
    return {word.ours: _value(word, words, where) for word in table if isinstance(word.ours, str)}


def write_words(table: Sequence[Word], config: Any) -> dict[str, Any]:
    """The settings of a config.json for one of our configs, in the order of the table."""
    values = [(word, getattr(config, word.ours) if isinstance(word.ours, str) else word.ours(config)) for word in table]
    return {
        word.theirs: list(value) if word.kind == "list" else value
        for word, value in values
        if value is not None or word.default is not None
    }


def check_fixed(words: Words, fixed: Fixed, where: Path) -> None:
    """BrokenModel where a setting has another value than those that we run (the first is the default)."""
    for name, allowed in fixed.items():
        if words.get(name, allowed[0]) not in allowed:
            raise BrokenModel(f"{where} has {name} {repr(words[name])[:80]}; this version runs {allowed[0]!r} only")


def need_word(words: Words, name: str, where: Path) -> Any:
    """A setting that must be there; BrokenModel where it is not."""
    if words.get(name) is None:
        raise BrokenModel(f"{where} does not say {name}")
    return words[name]


def _value(word: Word, words: Words, where: Path) -> Any:
    value = need_word(words, word.theirs, where) if word.default is REQUIRED else words.get(word.theirs, word.default)
    if word.kind == "number" and (type(value) is not int or value < 1):
        raise ValueError(f"{word.theirs} is {value!r}; a whole number from 1 is expected")
    if word.kind == "flag":
        return bool(value)
    return tuple(value) if word.kind == "list" else value
