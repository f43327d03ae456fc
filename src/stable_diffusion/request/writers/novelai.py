"""NovelAI: the prompt in `Description`, the settings as JSON in `Comment`, braces and brackets for weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .facts import Facts, words

STEP = 1.05
"""What a pair of braces multiplies a weight by, and a pair of brackets divides it by."""
_SCHEDULES = {"native": "Normal"}
_TAKEN = ("prompt", "uc", "steps", "height", "width", "scale", "seed", "n_samples", "sampler", "noise_schedule")
_HARMLESS = ("request_type", "signed_hash", "version", "params_version", "n_samples", "legacy", "legacy_uc")
_SIGNS = re.compile(r"[{}\[\]()]|[^{}\[\]()]+")


def is_novelai(texts: Mapping[str, str]) -> bool:
    return texts.get("Software", "").startswith("NovelAI") or "NovelAI" in texts.get("Title", "")


def novelai_facts(texts: Mapping[str, str], settings: Mapping[str, Any]) -> Facts:
    """From the texts of a picture and the JSON of its `Comment`."""
    prompt = words(settings.get("prompt")) or texts.get("Description", "")
    facts = Facts("NovelAI", weighted(prompt), weighted(words(settings.get("uc"))))
    facts.take(settings, {"steps": "Steps", "sampler": "Sampler", "scale": "CFG scale", "seed": "Seed"})
    schedule = settings.get("noise_schedule")
    facts.put("Schedule type", _SCHEDULES.get(str(schedule), schedule))
    facts.size(settings)
    facts.put("Guidance rescale", settings.get("cfg_rescale") or None)
    if settings.get("request_type", "") in ("Img2ImgRequest", "InpaintRequest") or "image" in settings:
        facts.put("Denoising strength", settings.get("strength"))
    facts.put("Model", texts.get("Source") or None)
    for name, value in settings.items():
        if name not in (*_TAKEN, *_HARMLESS, "cfg_rescale", "strength", "noise", "image", "uncond_scale"):
            facts.left(name, value)
    if settings.get("uncond_scale") not in (None, 1, 1.0, 0, 0.0):
        facts.left("uncond_scale", settings["uncond_scale"])
    return facts


def weighted(prompt: str) -> str:
    """{more} and [less] as A1111's weights; parentheses are text there and stay so here. Where the signs are no pairs,
    they are text."""
    pieces: list[list[str]] = [[]]
    opened: list[str] = []
    for sign in _SIGNS.findall(prompt):
        if sign in "{[":
            opened.append(sign)
            pieces.append([])
        elif sign in "}]":
            if not opened or {"{": "}", "[": "]"}[opened[-1]] != sign:
                return escaped(prompt)
            inner, opener = "".join(pieces.pop()), opened.pop()
            pieces[-1].append(f"({inner}:{STEP if opener == '{' else 1 / STEP:.4g})" if inner.strip() else inner)
        else:
            pieces[-1].append(escaped(sign))
    return escaped(prompt) if opened else "".join(pieces[0])


def escaped(text: str) -> str:
    """Text whose brackets are no weights."""
    return re.sub(r"([()\[\]])", r"\\\1", text)
