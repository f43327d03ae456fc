"""Whose texts a picture's are, and one text in A1111's form of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .comfy import comfy_facts, is_graph
from .facts import Facts
from .fooocus import draw_facts, easy_facts, fooocus_facts, ruined_facts, swarm_facts
from .infotext import split_text
from .invoke import dream_facts, invoke_facts
from .novelai import is_novelai, novelai_facts
from .programs import MATRIX

MOST_JSON = 8_000_000
"""Characters of JSON that are read."""
KEY = "parameters"
_JSON = json.JSONDecoder(strict=False, parse_constant=lambda name: None)
_FIRST = (KEY, "Parameters", "UserComment", "invokeai_metadata", "sd-metadata", "prompt")
"""Names of texts, the likeliest first."""


def infotext_of(texts: Mapping[str, str]) -> str | None:
    """One text in A1111's form of a picture's texts by name; None where none of them says how it was made."""
    if is_novelai(texts) and (settings := json_object(texts.get("Comment", ""))) is not None:
        return novelai_facts(texts, settings).text()
    if "num_inference_steps" in texts and "prompt" in texts:
        return easy_facts(texts).text()
    names = sorted(texts, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    found = next((text for name in names if (text := as_infotext(texts[name])) is not None), None)
    if (
        found is not None
        and ("parameters-json" in texts or "smproj" in texts)
        and "Version" not in split_text(found)[2]
    ):
        return f"{found.rstrip()}, Version: {MATRIX}"
    dream = texts.get("Dream")
    return dream_facts(dream).text() if found is None and dream else found


def as_infotext(text: str) -> str | None:
    """One text in any program's form in A1111's; None where it says nothing of a making."""
    start = text.lstrip("\ufeff \n\t")
    for prefix in ("prompt:", "Prompt:"):
        start = start.removeprefix(prefix).lstrip()
    data = json_object(start) if start[:1] == "{" else None
    if data is not None:
        facts = facts_of(data)
        return None if facts is None else facts.text()
    return text if split_text(text[:200_000])[2] else None


def json_object(text: str) -> dict[str, Any] | None:
    """An object of JSON; None where it is none, or far too long."""
    if len(text) > MOST_JSON:
        return None
    try:
        data = _JSON.decode(text)
        data = _JSON.decode(data) if isinstance(data, str) else data
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def json_texts(text: str) -> dict[str, str]:
    """The texts of a picture that were written as one object of JSON."""
    return {name: value for name, value in (json_object(text) or {}).items() if isinstance(value, str)}


def facts_of(data: Mapping[str, Any]) -> Facts | None:
    """What an object of JSON says, by whose words it has."""
    inner = data.get("sui_image_params")
    if isinstance(inner, Mapping):
        return swarm_facts(inner)
    if is_graph(data):
        return comfy_facts(data)
    if is_graph(graph := data.get("prompt")) and isinstance(graph, Mapping):
        return comfy_facts(graph)
    if "positive_prompt" in data or "InvokeAI" in str(data.get("app_id", "")):
        return invoke_facts(data)
    if "metadata_scheme" in data or "base_model" in data or "Fooocus" in str(data.get("version", "")):
        return fooocus_facts(data)
    if "Prompt" in data and "steps" in data:
        return ruined_facts(data)
    if "c" in data and "uc" in data:
        return draw_facts(data)
    if "num_inference_steps" in data and "prompt" in data:
        return easy_facts(data)
    if "uc" in data and "steps" in data:
        return novelai_facts({}, data)
    return None
