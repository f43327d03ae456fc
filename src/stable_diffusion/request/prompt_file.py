"""Prompts from a file, one a line, each with options of its own: A1111's script of that name, and our names besides.

a cat on a roof
--prompt "a dog" --negative_prompt "blurry" --steps 20 --cfg_scale 5 --seed 9 --size 512x768
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, unknown_choice
from ..pipeline.tasks.wildcards import read_text
from .request import Request

NAMES: dict[str, tuple[str, type]] = {
    "prompt": ("prompt", str),
    "negative_prompt": ("negative_prompt", str),
    "negative": ("negative_prompt", str),
    "styles": ("prompting.styles", tuple),
    "seed": ("seed", int),
    "subseed": ("variation.seed", int),
    "variation_seed": ("variation.seed", int),
    "subseed_strength": ("variation.strength", float),
    "variation_strength": ("variation.strength", float),
    "seed_resize_from_w": ("resize_w", int),
    "seed_resize_from_h": ("resize_h", int),
    "sampler_name": ("sampler", str),
    "sampler_index": ("sampler", str),
    "sampler": ("sampler", str),
    "scheduler": ("schedule", str),
    "schedule": ("schedule", str),
    "batch_size": ("count", int),
    "n_iter": ("rounds", int),
    "count": ("count", int),
    "steps": ("steps", int),
    "cfg_scale": ("guidance", float),
    "cfg": ("guidance", float),
    "guidance": ("guidance", float),
    "image_guidance": ("image_guidance", float),
    "width": ("width", int),
    "height": ("height", int),
    "size": ("size", str),
    "clip_skip": ("clip_skip", int),
    "background": ("background", str),
    "strength": ("strength", float),
    "tiling": ("canvas.tiling", bool),
    "hires": ("hires.scale", float),
    "refiner": ("refiner.model", str),
    "refiner_switch": ("refiner.switch", float),
    "refiner_checkpoint": ("refiner.model", str),
    "refiner_switch_at": ("refiner.switch", float),
    "eta": ("noise.eta", float),
    "sd_model": ("model", str),
    "model": ("model", str),
}
"""Option of a line, with `-` read as `_` -> field of the request (or of a group in it), and kind of value."""
TEXTS = ("prompt", "negative_prompt", "negative")
"""Options whose value goes on to the next option."""
IGNORED = (
    *("outpath_samples", "outpath_grids", "prompt_for_display"),
    *("restore_faces", "do_not_save_samples", "do_not_save_grid"),
)
"""Options of A1111's script that say nothing about the picture."""
MAX_LINES = 10_000


@dataclass(frozen=True)
class PromptLine:
    """One line: its number, and what it sets."""

    number: int
    settings: Mapping[str, Any]

    def request(self, base: Mapping[str, Any]) -> Request:
        """The request of this line; its settings go before those of `base`. InvalidRequest names the line."""
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
    lines = read_text(path, "file of prompts").splitlines()
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
    settings: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        name = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--"):
            raise InvalidRequest(f"line {number}: {word!r} stands where an option such as --steps was expected")
        if name not in NAMES and name not in IGNORED:
            raise unknown_choice(f"option in line {number}", word, [f"--{known}" for known in NAMES])
        if not words:
            raise InvalidRequest(f"line {number}: {word} has no value")
        value = words.pop(0)
        while name in TEXTS and words and not words[0].startswith("--"):  # A1111's files need no quotes there
            value += f" {words.pop(0)}"
        if name in NAMES:
            _put(settings, *NAMES[name], value, f"line {number}: {word}")
    return _finished(settings, number)


def _put(settings: dict[str, Any], field: str, kind: type, text: str, where: str) -> None:
    try:
        value = _value(kind, text)
    except ValueError:
        expected = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
        raise InvalidRequest(f"{where} is {text!r}; expected {expected}") from None
    group, dot, name = field.partition(".")
    if dot:
        settings.setdefault(group, {})[name] = value
    else:
        settings[field] = value


def _value(kind: type, text: str) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError(text)
        return text.lower() in ("true", "1", "yes")
    if kind is tuple:
        return tuple(name.strip() for name in text.split(",") if name.strip())
    return kind(text)


def _finished(settings: dict[str, Any], number: int) -> dict[str, Any]:
    if "prompt" not in settings:
        raise InvalidRequest(f"line {number}: there is no --prompt; expected one")
    rounds = settings.pop("rounds", 1)
    if rounds != 1:
        settings["count"] = settings.get("count", 1) * rounds
    resize = (settings.pop("resize_w", 0), settings.pop("resize_h", 0))
    if min(resize) > 0:  # A1111 says 0 or -1 where there is none
        settings.setdefault("variation", {})["resize_from"] = resize
    if "size" in settings:
        width, sign, height = settings.pop("size").lower().partition("x")
        try:
            settings["width"], settings["height"] = int(width), int(height if sign else width)
        except ValueError:
            raise InvalidRequest(f"line {number}: --size is no size; expected such as 512x768") from None
    return settings
