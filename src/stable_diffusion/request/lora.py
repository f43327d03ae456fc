"""An adapter file that is asked for, and how much of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest

MAX_STRENGTH = 100.0


@dataclass(frozen=True)
class Lora:
    """An adapter file and how much of it: for the U-Net, and for the text encoder (the same where it is None)."""

    path: Path
    strength: float = 1.0
    text_strength: float | None = None

    @staticmethod
    def of(value: object) -> Lora:
        """From a path, "PATH:STRENGTH", (path, strength) or (path, strength, text strength); InvalidRequest else."""
        if isinstance(value, Lora):
            path, numbers = value.path, (value.strength, value.text_strength)
        elif isinstance(value, (str, os.PathLike)):
            path, numbers = _split(value)
        elif isinstance(value, (tuple, list)) and 1 <= len(value) <= 3 and isinstance(value[0], (str, os.PathLike)):
            path, numbers = Path(value[0]), (value[1] if len(value) > 1 else 1.0, value[2] if len(value) > 2 else None)
        else:
            raise InvalidRequest(f"a LoRA is given as {value!r}; expected a path, or (path, strength)")
        strength = _checked_strength(path, numbers[0])
        return Lora(path, strength, None if numbers[1] is None else _checked_strength(path, numbers[1]))

    def plain(self) -> list[Any]:
        """As JSON holds it: [path, strength, strength for the text encoder or null]."""
        return [str(self.path), self.strength, self.text_strength]


def _split(value: str | os.PathLike[str]) -> tuple[Path, tuple[float, float | None]]:
    """ "style.safetensors:0.8" -> path and strength; a file whose name has a colon is found as it is."""
    text = os.fspath(value)
    path, sign, number = text.rpartition(":")
    if not sign or Path(text).exists():
        return Path(text), (1.0, None)
    try:
        return Path(path), (float(number), None)
    except ValueError:
        return Path(text), (1.0, None)


def _checked_strength(path: Path, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or abs(number) > MAX_STRENGTH:
        raise InvalidRequest(
            f"the strength of {str(path)!r} is {value!r}; expected a number from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}"
        )
    return number


def checked_loras(values: object) -> tuple[Lora, ...]:
    """The adapters of a request; one alone need not be in a list."""
    if isinstance(values, (str, os.PathLike, Lora)):
        values = (values,)
    if not isinstance(values, Iterable):
        raise InvalidRequest(f"loras is {values!r}; expected a list of paths, or of (path, strength)")
    return tuple(map(Lora.of, values))
