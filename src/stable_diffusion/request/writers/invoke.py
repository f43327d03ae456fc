"""InvokeAI: `invokeai_metadata` since version 3, `sd-metadata` and `Dream` before it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from .facts import Facts, words

_VALUES = {"steps": "Steps", "cfg_scale": "CFG scale", "seed": "Seed"}
_TAKEN = (
    *("app_version", "positive_prompt", "negative_prompt", "width", "height", "seed", "cfg_scale", "steps", "model"),
    *("scheduler", "loras", "rand_device", "clip_skip", "generation_mode", "strength", "cfg_rescale_multiplier"),
    *("seamless_x", "seamless_y", "vae", "prompt", "sampler", "app_id", "image", "model_weights", "model_hash"),
)
_HARMLESS = ("canvas_v2_metadata", "type", "postprocessing", "workflow", "graph", "embeds", "hash", "board")
_OPTIONS = {"-s": "Steps", "-S": "Seed", "-C": "CFG scale", "-A": "Sampler", "-W": "width", "-H": "height"}
_POWER = re.compile(r"(\((?:\\.|[^()\\])*\)|[\w'-]*\w)(\+{1,8}|-{1,8}(?![\w-])|\d\.\d+|\d(?!\w))")
PLUS, MINUS = 1.1, 0.9
"""What one + or - multiplies a weight by."""


def invoke_facts(data: Mapping[str, Any]) -> Facts:
    """From the object in `invokeai_metadata`, or in `sd-metadata`, whose settings are in `image`."""
    inner = data.get("image")
    old = {**data, **inner} if isinstance(inner, Mapping) else data
    prompt, negative = words(old.get("positive_prompt")), words(old.get("negative_prompt"))
    if not prompt and "prompt" in old:
        prompt, negative = _old_prompt(old["prompt"])
    facts = Facts("InvokeAI", compel_weights(prompt), compel_weights(negative), words(data.get("app_version")))
    facts.take(old, _VALUES)
    facts.size(old)
    _sampler(facts, words(old.get("scheduler")) or words(old.get("sampler")))
    facts.put("Model", _model_name(old.get("model")) or words(old.get("model_weights")) or None)
    device = words(old.get("rand_device"))
    facts.put("RNG", {"cpu": "CPU", "": None}.get(device, "GPU"))
    skip = old.get("clip_skip")
    facts.put("Clip skip", skip + 1 if isinstance(skip, int) and skip > 0 else None)
    facts.put("Guidance rescale", old.get("cfg_rescale_multiplier") or None)
    if old.get("generation_mode", old.get("type")) not in ("txt2img", "sdxl_txt2img", None):
        facts.put("Denoising strength", old.get("strength"))
    tiled = [bool(old.get(f"seamless_{axis}")) for axis in "xy"]
    facts.put("Tiling", {(True, True): "True", (True, False): "x", (False, True): "y"}.get((tiled[0], tiled[1])))
    _adapters(facts, old.get("loras"))
    facts.left("VAE", _model_name(old.get("vae")))
    for name, value in old.items():
        if name not in (*_TAKEN, *_HARMLESS):
            facts.left(name, value)
    return facts


def dream_facts(line: str) -> Facts:
    """From a command of version 1: `"a cat [dog]" -s 50 -S 7 -W 512 -H 512 -C 7.5 -A k_lms`."""
    try:
        parts = shlex.split(line)
    except ValueError:
        parts = line.split()
    prompt, negative = _old_prompt(parts[0] if parts else "")
    facts = Facts("InvokeAI", compel_weights(prompt), compel_weights(negative))
    sides: dict[str, float] = {}
    for part in (each for each in _attached(parts[1:])):
        key = _OPTIONS.get(part[0])
        if key in ("width", "height") and part[1].isdigit():
            sides[key] = int(part[1])
        elif key == "Sampler":
            _sampler(facts, part[1])
        elif key is not None:
            facts.put(key, part[1])
        else:
            facts.left(part[0].lstrip("-"), part[1])
    facts.size(sides)
    return facts


def _attached(parts: list[str]) -> list[tuple[str, str]]:
    """Options and values, written apart ("-s 50") or together ("-s50")."""
    found: list[tuple[str, str]] = []
    for part in parts:
        if re.match(r"-[A-Za-z]", part) and not part.startswith("--"):
            found.append((part[:2], part[2:]))
        elif part.startswith("--"):
            name, _, value = part.partition("=")
            found.append((name, value or "yes"))
        elif found and not found[-1][1]:
            found[-1] = (found[-1][0], part)
    return found


def _old_prompt(prompt: object) -> tuple[str, str]:
    """(prompt, negative prompt) of version 2, where the negative one stands in brackets, and several have weights."""
    if isinstance(prompt, list):
        prompt = " ".join(words(each.get("prompt")) for each in prompt if isinstance(each, Mapping))
    text = words(prompt)
    away = re.findall(r"(?<!\\)\[([^\[\]]*)\]", text)
    return re.sub(r"\s*(?<!\\)\[[^\[\]]*\]", "", text), ", ".join(away)


def _sampler(facts: Facts, name: str) -> None:
    """Its samplers end with "_k" where their steps are Karras'."""
    if not name:
        return
    facts.put("Sampler", name.removesuffix("_k") if not name.startswith("k_") else name)
    if name.endswith("_k"):
        facts.put("Schedule type", "Karras")


def _model_name(model: object) -> str:
    if isinstance(model, Mapping):
        return words(model.get("name")) or words(model.get("model_name")) or _model_name(model.get("model"))
    return words(model)


def _adapters(facts: Facts, loras: object) -> None:
    for entry in loras if isinstance(loras, list) else []:
        if isinstance(entry, Mapping) and isinstance(weight := entry.get("weight", 1), (int, float)):
            name = _model_name(entry.get("model") or entry.get("lora"))
            if name:
                facts.tag(name, float(weight), float(weight))


def compel_weights(prompt: str) -> str:
    """`(a cat)1.2`, `cat++` and `dog-` as A1111's weights; the rest as it stands."""

    def weight(match: re.Match[str]) -> str:
        what, power = match[1], match[2]
        if power[0] not in "+-" and not what.startswith("("):
            return match[0]  # a number behind a word is a number
        inner = what[1:-1] if what.startswith("(") else what
        value = float(power) if power[0] not in "+-" else (PLUS if power[0] == "+" else MINUS) ** len(power)
        return f"({inner}:{value:.4g})"

    return _POWER.sub(weight, prompt)
