"""The settings that A1111 keeps on its server, as far as they mean something here; unknown ones are ignored."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ...errors import InvalidRequest, nearest, unknown_choice
from ..library import Entry, Library

CHECKPOINT = "sd_model_checkpoint"
FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
"""Values of `samples_format` that answers can have, and our names of them."""
SOURCES = {"CPU": "cpu", "GPU": "device", "NV": "nv"}
"""A1111's names of generators of random numbers, and ours."""
EMPHASES = ("Original", "No norm", "Ignore", "None")
AUTOMATIC = ("automatic", "none", "")
CHECKSUM = re.compile(r"\s*\[[^\]]*\]\s*$")
"""How A1111 ends the title of a model that it has hashed."""
ENDINGS = (".safetensors", ".ckpt", ".pt", ".gguf")
MOST_SKIP = 100


@dataclass(frozen=True, kw_only=True)
class Options:
    """A1111's names, values and defaults; an empty checkpoint is the server's default model."""

    sd_model_checkpoint: str = ""
    sd_vae: str = "Automatic"
    CLIP_stop_at_last_layers: int = 1
    eta_noise_seed_delta: int = 0
    randn_source: str = "CPU"
    emphasis: str = "Original"
    token_merging_ratio: float = 0.0
    samples_format: str = "png"
    jpeg_quality: int = 80

    def as_json(self, library: Library) -> dict[str, Any]:
        """What GET /sdapi/v1/options gives: every key and value of it may be posted back."""
        model = self.sd_model_checkpoint or library.default_model().title
        return {**asdict(self), CHECKPOINT: model, "sd_checkpoint_hash": "", "samples_save": True}


def with_options(options: Options, given: Mapping[str, Any], library: Library) -> Options:
    """The options with those that are given; unknown keys are ignored, as A1111 ignores them, and null changes nothing.

    InvalidRequest, with the nearest choice, where a value cannot be used.
    """
    known = {each.name for each in fields(Options)}
    changes = {name: _CHECKS[name](name, value, library) for name, value in given.items() if name in known}
    return replace(options, **{name: value for name, value in changes.items() if value is not None})


def stored_options(given: object) -> Options:
    """Options as a database kept them; what it no longer understands is as usual."""
    known = {each.name: type(each.default) for each in fields(Options)}
    pairs = given.items() if isinstance(given, Mapping) else ()
    kept: dict[str, Any] = {name: value for name, value in pairs if type(value) is known.get(name)}
    return Options(**kept)


def checkpoint(library: Library, name: str) -> Entry:
    """The model of a title, name, file name or stem, in any case; a hash in brackets at its end is not compared.

    InvalidRequest with the nearest title: another model than the one asked for would break the promise about seeds.
    """
    wanted = CHECKSUM.sub("", name).strip().casefold()
    entries = library.models.entries().values()
    for entry in entries:
        if wanted in (entry.name.casefold(), entry.title.casefold(), _stem(entry.title).casefold()):
            return entry
    for entry in entries:
        if _stem(wanted) == _stem(entry.title).casefold():
            return entry
    titles = [entry.title for entry in entries]
    close = nearest(CHECKSUM.sub("", name), titles)
    hint = f"did you mean {close!r}?" if close else f"there are {len(titles)}, such as {titles[0]!r}"
    raise InvalidRequest(f"there is no checkpoint {name[:80]!r}; {hint}")


def _stem(name: str) -> str:
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return name


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{name} is {str(value)[:80]!r}; expected text")
    return value


def _checkpoint(name: str, value: Any, library: Library) -> str | None:
    text = _text(name, value)
    return text if not text else checkpoint(library, text).title


def _vae(name: str, value: Any, library: Library) -> str | None:
    text = _text(name, value)
    if text is not None and text.casefold() not in AUTOMATIC:
        raise InvalidRequest(f"{name} is {text[:80]!r}; expected 'Automatic': models keep the decoder that they have")
    return None if text is None else "Automatic"


def _one_of(*names: str) -> Any:
    def check(name: str, value: Any, library: Library) -> str | None:
        text = _text(name, value)
        if text is None:
            return None
        found = next((each for each in names if each.casefold() == text.casefold()), None)
        if found is None:
            raise unknown_choice(name, text, names)
        return found

    return check


def _whole(low: int, high: int) -> Any:
    def check(name: str, value: Any, library: Library) -> int | None:
        if value is None:
            return None
        try:
            number = math.nan if isinstance(value, bool) else float(value)
            exact = value if isinstance(value, int) else number
        except (TypeError, ValueError, OverflowError):
            number = exact = math.nan
        if not (math.isfinite(number) and number == math.floor(number) and low <= number <= high):
            raise InvalidRequest(f"{name} is {str(value)[:40]!r}; expected a whole number from {low} to {high}")
        return int(exact)

    return check


def _ratio(name: str, value: Any, library: Library) -> float | None:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if value is not None and (number is None or not 0 <= number <= 0.9):
        raise InvalidRequest(f"{name} is {str(value)[:40]!r}; expected a number from 0 to 0.9")
    return None if number is None else float(number)


_CHECKS: dict[str, Any] = {
    CHECKPOINT: _checkpoint,
    "sd_vae": _vae,
    "CLIP_stop_at_last_layers": _whole(1, MOST_SKIP),
    "token_merging_ratio": _ratio,
    "eta_noise_seed_delta": _whole(0, 2**53),
    "randn_source": _one_of(*SOURCES),
    "emphasis": _one_of(*EMPHASES),
    "samples_format": _one_of(*FORMATS),
    "jpeg_quality": _whole(1, 100),
}
