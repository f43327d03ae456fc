"""Fooocus and its kin, SwarmUI, Easy Diffusion and Draw Things: one flat object of JSON, each in words of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .facts import Facts, words

_KEYS = {
    "steps": "Steps",
    "sampler": "Sampler",
    "scheduler": "Schedule type",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "base_model": "Model",
    "base_model_hash": "Model hash",
}
_SWARM = {
    "steps": "Steps",
    "sampler": "Sampler",
    "scheduler": "Schedule type",
    "cfgscale": "CFG scale",
    "seed": "Seed",
    "model": "Model",
}
_EASY = {
    "num_inference_steps": "Steps",
    "sampler_name": "Sampler",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "use_stable_diffusion_model": "Model",
}
_DRAW = {"steps": "Steps", "sampler": "Sampler", "scale": "CFG scale", "seed": "Seed", "model": "Model"}
_RUINED = {
    "steps": "Steps",
    "sampler_name": "Sampler",
    "scheduler": "Schedule type",
    "cfg": "CFG scale",
    "seed": "Seed",
    "base_model_name": "Model",
    "base_model_hash": "Model hash",
}
_PLAIN = (
    "prompt",
    "negative_prompt",
    "full_prompt",
    "full_negative_prompt",
    "metadata_scheme",
    "version",
    "created_by",
)


def fooocus_facts(data: Mapping[str, Any]) -> Facts:
    """Its prompts are those that it made of the user's with its styles."""
    full, away = data.get("full_prompt"), data.get("full_negative_prompt")
    prompt, negative = words(full) or words(data.get("prompt")), words(away) or words(data.get("negative_prompt"))
    version = words(data.get("version")).removeprefix("Fooocus").strip()
    facts = Facts("Fooocus", prompt, negative, version)
    facts.take(data, _KEYS)
    sides = re.findall(r"\d+", words(data.get("resolution")))
    if len(sides) == 2:
        facts.size({"width": int(sides[0]), "height": int(sides[1])})
    if isinstance(data.get("clip_skip"), int) and data["clip_skip"] > 0:
        facts.put("Clip skip", data["clip_skip"])
    loras = list(data["loras"]) if isinstance(data.get("loras"), list) else []
    facts.adapters([*loras, *(_numbered(value) for name, value in data.items() if name.startswith("lora_combined_"))])
    refiner = words(data.get("refiner_model"))
    if refiner and refiner != "None":
        facts.put("Refiner", refiner)
        facts.put("Refiner switch at", data.get("refiner_switch"))
    taken = (*_KEYS, *_PLAIN, "resolution", "clip_skip", "loras", "refiner_model", "refiner_switch", "prompt_expansion")
    for name, value in data.items():
        if name not in (*taken, "styles", "refiner_model_hash") and not name.startswith("lora_combined_"):
            facts.left(name, "" if value in ("Default (model)", "Speed") else value)
    return facts


def _numbered(value: object) -> list[object]:
    """ "name.safetensors : 0.5" as a name and a weight."""
    name, _, weight = words(value).rpartition(":")
    try:
        return [name.strip(), float(weight)]
    except ValueError:
        return []


def swarm_facts(data: Mapping[str, Any]) -> Facts:
    """From `sui_image_params`."""
    return _flat("SwarmUI", data, _SWARM, words(data.get("negativeprompt")), words(data.get("swarm_version")))


def easy_facts(data: Mapping[str, Any]) -> Facts:
    """From a JSON file's fields, which its PNG files hold as texts of their own."""
    numbers = {name: _number(value) for name, value in data.items()}
    facts = _flat("Easy Diffusion", numbers, _EASY, words(data.get("negative_prompt")), "")
    loras, weights = data.get("use_lora_model"), data.get("lora_alpha")
    if isinstance(loras, str) and loras and loras != "None":
        facts.adapters([[loras, _number(weights) if isinstance(_number(weights), (int, float)) else 1]])
    return facts


def ruined_facts(data: Mapping[str, Any]) -> Facts:
    """RuinedFooocus, whose prompts begin with capitals."""
    facts = _flat("Fooocus", {**data, "prompt": data.get("Prompt")}, _RUINED, words(data.get("Negative")), "Ruined")
    return facts


def draw_facts(data: Mapping[str, Any]) -> Facts:
    """From the user comment of Draw Things: `c` and `uc` are the prompts."""
    sides = re.findall(r"\d+", words(data.get("size")))
    size = {"width": int(sides[0]), "height": int(sides[1])} if len(sides) == 2 else {}
    facts = _flat("Draw Things", {**data, **size, "prompt": data.get("c")}, _DRAW, words(data.get("uc")), "")
    if data.get("strength") not in (None, 1, 1.0):
        facts.put("Denoising strength", data["strength"])
    return facts


def _number(value: object) -> object:
    """A number that stands as text."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,25}", value):
        return int(value)
    return value


_TAKEN = (
    *("width", "height", "prompt", "c", "uc", "size", "strength", "negativeprompt", "negative_prompt", "Prompt"),
    *("Negative", "loras", "lora_alpha", "use_lora_model", "swarm_version", "software", "v2", "original_prompt"),
    *("aspectratio", "denoise", "start_step", "clip_skip", "show_only_filtered_image", "output_format", "images"),
    *("output_quality", "session_id", "request_id", "stream_progress_updates", "stream_image_progress", "block_nsfw"),
    *("used_random_seed", "save_to_disk_path", "vram_usage_level", "metadata_output_format", "active_tags", "date"),
    *("device", "num_outputs", "automaticvae", "profile"),
)


def _flat(program: str, data: Mapping[str, Any], keys: Mapping[str, str], negative: str, version: str) -> Facts:
    facts = Facts(program, words(data.get("prompt")), negative, version)
    facts.take(data, keys)
    facts.size(data)
    facts.adapters(data.get("loras"))
    if isinstance(data.get("clip_skip"), int) and data["clip_skip"] > 0:
        facts.put("Clip skip", data["clip_skip"])
    for name, value in data.items():
        if name not in keys and name not in _TAKEN:
            facts.left(name, value)
    return facts
