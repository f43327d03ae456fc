"""`<lora:name:weight>` in a prompt: read, and taken out of the text that the encoder sees.

The grammar is A1111's: `<lora:name>`, `<lora:name:0.8>` for both networks, `<lora:name:0.5:0.9>` for text encoder and
U-Net, and the same by key (`te=0.5`, `unet=0.9`). `lyco` is another word for `lora`. Any other text in angle brackets
stays as it is.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import InvalidRequest

_TAG = re.compile(r"[ \t]*<(?:lora|lyco):([^<>\n]*)>", re.IGNORECASE)
MAX_TAGS = 32


@dataclass(frozen=True)
class LoraTag:
    """One tag: the adapter's name as written, and its strengths."""

    name: str
    strength: float = 1.0
    text_strength: float = 1.0


def take_tags(prompt: str) -> tuple[str, tuple[LoraTag, ...]]:
    """The prompt without its tags, and the tags in order. InvalidRequest where a tag cannot be read."""
    tags = tuple(_read(match.group().strip(), match[1]) for match in _TAG.finditer(prompt))
    if len(tags) > MAX_TAGS:
        raise InvalidRequest(f"the prompt has {len(tags)} <lora:...> tags; expected at most {MAX_TAGS}")
    return (_TAG.sub("", prompt).strip() if tags else prompt), tags


def _read(tag: str, inside: str) -> LoraTag:
    name, *fields = (field.strip() for field in inside.split(":"))
    if not name:
        raise InvalidRequest(f"{tag!r} names no adapter; expected <lora:name:weight>")
    found: dict[str, float] = {}
    for place, field in zip(("te", "unet", "dyn"), fields, strict=False):
        key, sign, value = field.partition("=")
        key, value = (key.strip().lower(), value) if sign else (place, field)
        if key not in ("te", "unet"):
            raise InvalidRequest(f"{tag!r} has the field {field!r}; expected te=NUMBER or unet=NUMBER")
        found[key] = _number(tag, value)
    if len(fields) > 3:
        raise InvalidRequest(f"{tag!r} has {len(fields)} fields after the name; expected at most two numbers")
    text = found.get("te", 1.0)
    return LoraTag(name, strength=found.get("unet", text), text_strength=text)


def _number(tag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidRequest(f"{tag!r} has the weight {text.strip()!r}; expected a number such as 0.8")
    return value
