"""Kinds of values: each checks one in a plain sentence, reads it from text, writes it as text, and describes itself."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InvalidRequest, nearest, unknown_choice, what_is
from .pictures import open_picture

MAX_PROMPT = 10_000
UPSCALER_FOLDERS = "STABLE_DIFFUSION_UPSCALERS"
"""Variable of the environment that names folders of upscalers."""
UPSCALER_ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt")


@dataclass(frozen=True)
class Kind:
    """What a setting may be.

    form      what text is expected to be, as in "expected a whole number"
    scalar    the Python type of one value where an axis of a grid can go through several, else None
    """

    form: ClassVar[str] = "text"
    scalar: ClassVar[type | None] = None

    @property
    def expected(self) -> str:
        """What a value is expected to be, for a sentence."""
        return self.form

    def check(self, name: str, value: Any) -> Any:
        """The value as a request holds it; InvalidRequest names the setting `name` where it is unusable."""
        return value

    def read(self, text: str) -> Any:
        """A value from text, which `check` has still to see; ValueError where the text has not this `form`."""
        return text

    def write(self, value: Any) -> object:
        """The value as a picture's text has it; None where there is nothing to say."""
        return value

    def plain(self, value: Any) -> Any:
        """The value as JSON holds it."""
        return value

    def schema(self) -> dict[str, Any]:
        """A JSON schema of the values."""
        return {"type": "string"}


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number from `low` to `high`; with `random`, -1 stands for None: a random one."""

    low: int
    high: int
    random: bool = False
    form = "a whole number"
    scalar = int

    @property
    def expected(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def check(self, name: str, value: Any) -> int | None:
        if self.random and value == -1 and not isinstance(value, bool):
            return None
        try:
            if isinstance(value, bool):
                raise TypeError
            index = operator.index(value)
        except TypeError:
            raise InvalidRequest(f"{name} is {value!r}; expected {self.expected}") from None
        if not self.low <= index <= self.high:
            raise InvalidRequest(f"{name} is {index}; expected {self.expected}")
        return index

    def read(self, text: str) -> int:
        return int(text)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": -1 if self.random else self.low, "maximum": self.high}


@dataclass(frozen=True)
class Number(Kind):
    """A finite number from `low` to `high`; where `endless`, infinity stands for None: no bound."""

    low: float
    high: float
    endless: bool = False
    form = "a number"
    scalar = float

    @property
    def expected(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"

    def check(self, name: str, value: Any) -> float | None:
        try:
            if isinstance(value, (bool, str)):
                raise TypeError
            real = float(value)
        except (TypeError, ValueError, OverflowError):
            raise InvalidRequest(f"{name} is {value!r}; expected {self.expected}") from None
        if self.endless and real == math.inf:
            return None
        if not math.isfinite(real) or not self.low <= real <= self.high:
            raise InvalidRequest(f"{name} is {real:g}; expected {self.expected}")
        return real

    def read(self, text: str) -> float:
        return float(text)

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Flag(Kind):
    """True or False."""

    form = "true or false"

    @property
    def expected(self) -> str:
        return "True or False"

    def check(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InvalidRequest(f"{name} is {value!r}; expected {self.expected}")
        return value

    def read(self, text: str) -> bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError(text)
        return text.lower() in ("true", "1", "yes")

    def write(self, value: Any) -> object:
        return value or None

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Choice(Kind):
    """One of `names`; `folded` takes any case, and True and False stand for `on` and None where there is an `on`."""

    names: tuple[str, ...]
    folded: bool = False
    on: str | None = None
    scalar = str

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.names)}"

    def check(self, name: str, value: Any) -> str | None:
        if isinstance(value, bool) and self.on is not None:
            return self.on if value else None
        if self.folded:
            wanted = str(value).strip().casefold()
            value = next((known for known in self.names if known.casefold() == wanted), value)
        if value not in self.names:
            raise unknown_choice(name, str(value), self.names)
        return str(value)

    def read(self, text: str) -> str | bool:
        return Flag().read(text) if self.on is not None and text not in self.names else text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.names)}


@dataclass(frozen=True)
class Named(Kind):
    """A name that `find` makes canonical, of which `names` are the usual ones; `find` raises InvalidRequest."""

    find: Callable[[str], str]
    names: tuple[str, ...]
    scalar = str

    def check(self, name: str, value: Any) -> str:
        return self.find(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "examples": list(self.names)}


@dataclass(frozen=True)
class Upscaler(Kind):
    """One of `names` in any case, the path of an upscaler's file, or the name of one in the folder that
    STABLE_DIFFUSION_UPSCALERS names (several folders as in PATH), which becomes its path."""

    names: tuple[str, ...]
    scalar = str

    @property
    def expected(self) -> str:
        return f"{', '.join(self.names)}, or the file of an upscaler"

    def check(self, name: str, value: Any) -> str:
        text = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(text, str) or not text or "\0" in text:
            raise InvalidRequest(f"{name} is {what_is(value)}; expected {self.expected}")
        files = upscaler_files()
        for known in (*self.names, *files):
            if text.strip().casefold() in (known.casefold(), files[known].name.casefold() if known in files else None):
                return str(files[known]) if known in files else known
        if os.sep in text or text.lower().endswith(UPSCALER_ENDINGS):
            return str(Path(text).expanduser())
        raise unknown_choice(name, text, [*self.names, *files])

    def write(self, value: Any) -> object:
        return value if value in self.names else Path(value).stem

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "examples": list(self.names)}


def upscaler_files() -> dict[str, Path]:
    """Name without ending -> file, in the folders of STABLE_DIFFUSION_UPSCALERS."""
    found: dict[str, Path] = {}
    for folder in filter(None, os.environ.get(UPSCALER_FOLDERS, "").split(os.pathsep)):
        try:
            for path in sorted(Path(folder).expanduser().iterdir()):
                if path.suffix.lower() in UPSCALER_ENDINGS:
                    found.setdefault(path.stem, path)
        except OSError:  # a folder that is gone holds none
            continue
    return found


@dataclass(frozen=True)
class Colour(Kind):
    """One of `names`, or a colour such as #ff8800, in any case."""

    names: tuple[str, ...]
    scalar = str

    @property
    def expected(self) -> str:
        return f"{', '.join(self.names)}, or a colour such as #ff8800"

    def check(self, name: str, value: Any) -> str:
        text = value.strip().lower() if isinstance(value, str) else ""
        if text in self.names or re.fullmatch(r"#[0-9a-f]{6}", text):
            return text
        close = nearest(str(value), self.names)
        hint = f"did you mean {close!r}? " if close else ""
        raise InvalidRequest(f"{name} is {value!r}; {hint}expected {self.expected}")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "examples": [*self.names, "#ff8800"]}


@dataclass(frozen=True)
class Text(Kind):
    """Text without outer white space and with plain line ends; not empty where it is `needed`."""

    needed: bool = False
    scalar = str

    def check(self, name: str, value: Any) -> str:
        text = checked_text(name, value)
        if self.needed and not text:
            raise InvalidRequest(f"the {name} is empty; expected a few words that say what to show")
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": int(self.needed), "maxLength": MAX_PROMPT}


@dataclass(frozen=True)
class Model(Kind):
    """The path or name of a model."""

    scalar = str

    @property
    def expected(self) -> str:
        return "a path or name"

    def check(self, name: str, value: Any) -> str:
        if not isinstance(value, (str, os.PathLike)) or not str(value):
            raise InvalidRequest(f"{name} is {value!r}; expected a path or name")
        return str(value)


@dataclass(frozen=True)
class FilePath(Kind):
    """The path of a file or folder, whether or not it is there."""

    @property
    def expected(self) -> str:
        return "a path"

    def check(self, name: str, value: Any) -> Path:
        if not isinstance(value, (str, os.PathLike)):
            raise InvalidRequest(f"{name} is {value!r}; expected a path")
        return Path(value).expanduser()

    def plain(self, value: Any) -> str:
        return str(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "path"}


@dataclass(frozen=True)
class Picture(Kind):
    """A picture in any form that `open_picture` takes."""

    def check(self, name: str, value: Any) -> Any:
        return open_picture(value, name)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"}


def checked_text(name: str, value: object) -> str:
    """Text without outer white space and with plain line ends; InvalidRequest where it cannot be a prompt."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is {what_is(value)}; expected text")
    text = value.replace("\r\n", "\n").replace("\r", "\n").strip()
    if len(text) > MAX_PROMPT:
        raise InvalidRequest(f"{name} has {len(text)} characters; expected at most {MAX_PROMPT}")
    wrong = next((c for c in text if (ord(c) < 32 and c not in "\n\t") or 0xD800 <= ord(c) <= 0xDFFF), None)
    if wrong is not None:
        raise InvalidRequest(f"{name} holds the character U+{ord(wrong):04X}, which is not text")
    return text
