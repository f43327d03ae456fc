"""Every error that this package raises on purpose.

    StableDiffusionError(Exception)      catch this one to catch them all
    ├── InvalidRequest(ValueError)       a value given by the caller: sampler name, size, prompt, seed ...
    ├── ModelFileError(ValueError)       a file that cannot be used as a model
    │   ├── UnknownModel                 no family recognises it; `reasons` says why, family by family
    │   ├── BrokenModel                  recognised, but keys or shapes are missing, unexpected or wrong
    │   └── UnsafeFile                   a pickle that asks for anything but tensors, or a malformed container
    └── TrainingDiverged(RuntimeError)   the loss became NaN or infinite; the last good checkpoint is kept

Messages are one plain sentence: what was given, what was expected, and the nearest valid choice where there is one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StableDiffusionError(Exception):
    """Base class of the errors that this package raises on purpose."""


class InvalidRequest(StableDiffusionError, ValueError):
    """A value given by the caller is not usable."""


class ModelFileError(StableDiffusionError, ValueError):
    """A file or folder cannot be used as a model."""


class UnknownModel(ModelFileError):
    """No known family matches; `reasons` maps each family's name to why it did not match."""

    def __init__(self, message: str, reasons: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = reasons or {}


class BrokenModel(ModelFileError):
    """The family was recognised, but tensors are missing, unexpected or of the wrong shape."""


class UnsafeFile(ModelFileError):
    """The file is malformed, or a pickle that would run code; it was not loaded."""


class TrainingDiverged(StableDiffusionError, RuntimeError):
    """The loss is no longer finite; training stopped and the last good checkpoint was kept."""


def printable(text: str) -> str:
    """The text on one line, without signs that a terminal would act on or could not show."""
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in text)


def brief(value: object, most: int = 80) -> str:
    """What a file says, or a library says of it, fit for a message: on one line and at most `most` characters long."""
    return " ".join(printable(str(value)[: 4 * most]).split())[:most]


def what_is(value: object) -> str:
    """What was given in the wrong place, for a message: "None", "the text 'a cat'", "a tensor of shape [1, 4, 8]"."""
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str):
        return f"the text {brief(value, 40)!r}"
    if hasattr(value, "getbands"):
        return f"a picture of {value.width}x{value.height} pixels"  # type: ignore[attr-defined]  # Pillow's
    if hasattr(value, "shape"):
        return f"{'a tensor' if hasattr(value, 'detach') else 'an array'} of shape {list(value.shape)}"
    name = type(value).__name__
    return "bytes" if name == "bytes" else f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None where none is close (similarity ratio under 0.5)."""
    by_folded = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(str(name).casefold(), by_folded, n=1, cutoff=0.5)
    return by_folded[found[0]] if found else None


def unknown_choice(what: str, given: object, choices: Iterable[str]) -> InvalidRequest:
    """The error for a name that is not in a closed list, naming the nearest valid one and then all of them."""
    choices = list(choices)
    close = nearest(str(given), choices)
    hint = f"did you mean {close!r}? " if close else ""
    return InvalidRequest(f"unknown {what} {repr(given)[:200]}: {hint}choose from {', '.join(choices)}")
