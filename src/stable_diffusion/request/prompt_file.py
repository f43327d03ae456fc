"""Prompts from a file, one a line, each with options of its own: A1111's script of that name, and our names besides.

a cat on a roof
--prompt "a dog" --negative_prompt "blurry" --steps 20 --cfg_scale 5 --seed 9 --size 512x768
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, unknown_choice
from .group import Setting
from .request import Request, all_settings
from .sequences import Pixels

TEXTS = ("prompt", "negative_prompt", "negative")
"""Options whose value goes on to the next option."""
APART = ("size", "n_iter", "seed_resize_from_w", "seed_resize_from_h")
"""Options that are no setting of their own."""
IGNORED = (
    *("outpath_samples", "outpath_grids", "prompt_for_display"),
    *("restore_faces", "do_not_save_samples", "do_not_save_grid"),
)
"""Options of A1111's script that say nothing about the picture."""
MAX_LINES = 10_000
MOST_BYTES = 16 * 2**20


@functools.cache
def settings_by_name() -> dict[str, Setting]:
    """Option of a line, with `-` read as `_` -> the setting that it means: our names, and those of other programs."""
    found: dict[str, Setting] = {}
    for each in all_settings():
        for name in each.names:
            found.setdefault(name, each)
    return found


@dataclass(frozen=True)
class PromptLine:
    """One line: its number, and what it sets."""

    number: int
    settings: Mapping[str, Any]

    def request(self, **base: Any) -> Request:
        """The request of this line, whose settings go before those of `base`. InvalidRequest names the line."""
        merged = dict(base)
        for name, value in self.settings.items():
            known = merged.get(name)
            both = isinstance(value, dict) and isinstance(known, Mapping)
            merged[name] = {**known, **value} if both and isinstance(known, Mapping) else value
        try:
            return Request(**merged)
        except InvalidRequest as error:
            raise InvalidRequest(f"line {self.number}: {error}") from None


def read_prompts(path: Path) -> list[PromptLine]:
    """The lines of a file, without empty ones and those that begin with #. InvalidRequest where there is none."""
    lines = read_small_text(path, "file of prompts").splitlines()
    found = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    wanted = [(number, line) for number, line in found if line and not line.startswith("#")]
    if not wanted or len(wanted) > MAX_LINES:
        raise InvalidRequest(f"{str(path)!r} holds {len(wanted)} prompts; expected 1 to {MAX_LINES}")
    return [PromptLine(number, parse_line(line, number)) for number, line in wanted]


def parse_line(line: str, number: int = 1) -> dict[str, Any]:
    """What a line sets: a line that does not begin with `--` is a prompt as it stands."""
    if not line.startswith("--"):
        return {"prompt": line}
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InvalidRequest(f"line {number}: {str(error)[:1].lower()}{str(error)[1:]}") from None
    pairs: list[tuple[str, str]] = []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise InvalidRequest(f"line {number}: {word!r} stands where an option such as --steps was expected")
        name = known_option(word, number)
        if not words:
            raise InvalidRequest(f"line {number}: {word} has no value")
        value = words.pop(0)
        while name in TEXTS and words and not words[0].startswith("--"):  # A1111's files need no quotes there
            value += f" {words.pop(0)}"
        pairs.append((word, value))
    return settings_of(pairs, number)


def known_option(word: str, number: int) -> str:
    """The name that an option of a line is known by; InvalidRequest with the nearest one where it is not."""
    name, known = word.removeprefix("--").replace("-", "_"), settings_by_name()
    if name not in known and name not in APART and name not in IGNORED:
        raise unknown_choice(f"option in line {number}", word, [f"--{each}" for each in (*known, *APART)])
    return name


def settings_of(pairs: Iterable[tuple[str, str]], number: int) -> dict[str, Any]:
    """Options and their values as text -> the settings of a request. InvalidRequest names the line."""
    settings: dict[str, Any] = {}
    apart: dict[str, str] = {}
    known = settings_by_name()
    for word, value in pairs:
        name = known_option(word, number)
        if name in known:
            _put(settings, known[name], value, f"line {number}: {word}")
        elif name in APART:
            apart[name] = value
    return _finished(settings, apart, number)


def _put(settings: dict[str, Any], setting: Setting, text: str, where: str) -> None:
    try:
        setting.put(settings, setting.kind.read(text))
    except ValueError:
        raise InvalidRequest(f"{where} is {text!r}; expected {setting.kind.form}") from None


def _finished(settings: dict[str, Any], apart: dict[str, str], number: int) -> dict[str, Any]:
    """The settings, with what A1111 gives in pieces put together."""
    if "prompt" not in settings:
        raise InvalidRequest(f"line {number}: there is no --prompt; expected one")
    whole = {name: _whole(name, apart[name], number) for name in APART if name in apart and name != "size"}
    rounds = whole.get("n_iter", 1)
    if rounds != 1:
        settings["count"] = settings.get("count", 1) * rounds
    resize = (whole.get("seed_resize_from_w", 0), whole.get("seed_resize_from_h", 0))
    if min(resize) > 0:  # A1111 says 0 or -1 where there is none
        settings.setdefault("variation", {})["resize_from"] = resize
    if "size" in apart:
        try:
            settings["width"], settings["height"] = Pixels().read(apart["size"])
        except ValueError:
            raise InvalidRequest(f"line {number}: --size is no size; expected such as 512x768") from None
    return settings


def _whole(name: str, text: str, number: int) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(f"line {number}: --{name} is {text!r}; expected a whole number") from None


def read_small_text(path: Path, what: str) -> str:
    """A small text file in UTF-8, with or without a mark at its beginning; InvalidRequest where it is none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InvalidRequest(f"the {what} {str(path)!r} is too large; expected at most {MOST_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest(f"the {what} {str(path)!r} is not text in UTF-8") from None
    except OSError as error:
        raise InvalidRequest(f"the {what} {str(path)!r} cannot be read: {error.strerror}") from None
