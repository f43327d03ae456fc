"""The widget's form, from the table of settings: what it shows, and a request from what it holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidRequest, unknown_choice
from ..request.fields import Flag, Model, Text
from ..request.group import Setting, every_setting
from ..request.request import Request

OWN = ("prompt", "seed", "model")
"""Settings that have a place of their own in the widget, or none."""
FIRST = ("negative_prompt", "width", "height", "steps", "guidance", "sampler", "schedule", "count", "background")
"""What the form shows first; the rest is folded away under its headings."""


def fields() -> dict[str, Setting]:
    """The settings that a form can show, by path, in the order of the table."""
    every = every_setting(Request)
    shown = (each for each in every if each.name not in OWN and not isinstance(each.kind, Model))
    return {each.path: each for each in shown if each.kind.scalar is not None or isinstance(each.kind, (Flag, Text))}


def form() -> list[dict[str, object]]:
    """The fields as JSON: path, heading, help, and the JSON schema of their values."""
    found = fields()
    paths = [*(path for path in FIRST if path in found), *(path for path in found if path not in FIRST)]
    return [_described(found[path], path in FIRST) for path in paths]


def _described(each: Setting, first: bool) -> dict[str, object]:
    schema = each.kind.schema()
    return {
        "path": each.path,
        "label": _label(each),
        "section": "" if first else each.section,
        "help": re.sub(r"`([^`]*)`", r"\1", each.help),
        "usual": each.usual,
        "default": each.kind.plain(each.default) if each.default is not None else None,
        "type": schema.get("type", "string"),
        "choices": [*schema.get("enum", ())],
        "offers": [*schema.get("examples", ())],
        "minimum": schema.get("minimum"),
        "maximum": schema.get("maximum"),
    }


def _label(each: Setting) -> str:
    words = (each.label or each.name).replace("_", " ")
    return words[:1].upper() + words[1:]


def split(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a call -> (those of the form by path, the rest as a request takes them)."""
    shown, rest = fields(), {}
    flat: dict[str, Any] = {}
    checked = Request("", **given)
    for name, value in given.items():
        inner = {path: each for path, each in shown.items() if path == name or path.startswith(f"{name}.")}
        values = {path: each.of(checked) for path, each in inner.items()}
        group = any(path != name for path in inner)
        if not inner or (group and value is not None and not isinstance(value, Mapping)):
            rest[name] = value
            continue
        wanted = value if isinstance(value, Mapping) else None
        for path, found in values.items():
            if found is not None and (wanted is None or path.split(".")[-1] in wanted):
                flat[path] = shown[path].kind.plain(found)
    return flat, rest


def request_of(prompt: str, settings: Mapping[str, object], seed: int | None, rest: Mapping[str, Any]) -> Request:
    """The request that the form asks for; InvalidRequest in a sentence where a value is unusable."""
    shown = fields()
    values: dict[str, Any] = dict(rest)
    for path, value in settings.items():
        if path not in shown:
            raise unknown_choice("setting", path, [*shown])
        if value is None or value == "":
            continue
        shown[path].put(values, shown[path].check(_whole(value)))
    return Request(prompt, seed=seed, **values)


def _whole(value: object) -> object:
    """JavaScript has one kind of number: 4.0 is 4."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def seed_of(text: str) -> int | None:
    """The seed in the widget's box; None for an empty one or -1."""
    try:
        seed = int(text) if text.strip() else -1
    except ValueError:
        raise InvalidRequest(f"seed is {text!r}; expected a whole number, or nothing for a random one") from None
    return None if seed == -1 else seed
