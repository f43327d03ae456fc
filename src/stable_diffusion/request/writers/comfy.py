"""ComfyUI: the graph of a picture's making, as JSON under `prompt`, read back to one sampler's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .facts import Facts

Graph = Mapping[str, Mapping[str, Any]]
DEEPEST = 200
"""A path through more nodes is not followed."""
_SEEDS, _PARTS = ("seed", "noise_seed"), ("positive", "negative")
_TEXTS = ("text", "text_g", "text_l", "string", "value", "prompt", "clip_l", "t5xxl", "Text", "STRING")
_QUIET = (
    *("CheckpointLoader", "CLIPTextEncode", "EmptyLatent", "EmptySD3Latent", "VAEDecode", "SaveImage", "PreviewImage"),
    *("KSampler", "Lora", "CLIPSetLastLayer", "Primitive", "Note", "Reroute", "String", "Text", "ShowText", "Int"),
    *("SamplerCustom", "BasicScheduler", "KarrasScheduler", "RandomNoise", "CFGGuider", "BasicGuider", "Seed", "Float"),
    *("CLIPLoader", "DualCLIPLoader", "UNETLoader", "Image Save", "Save"),
)
"""How the classes of nodes begin of which nothing more is to be said."""


def is_graph(data: object) -> bool:
    """Whether it is a graph as ComfyUI runs it: node ids -> a class and its inputs."""
    return (
        isinstance(data, Mapping)
        and bool(data)
        and all(isinstance(node, Mapping) for node in data.values())
        and any("class_type" in node and isinstance(node.get("inputs"), Mapping) for node in data.values())
    )


def comfy_facts(data: Mapping[str, Any]) -> Facts | None:
    """From the graph; None where nothing in it samples."""
    graph: Graph = {str(key): node for key, node in data.items() if isinstance(node.get("inputs"), Mapping)}
    samplers = [key for key in graph if _is_sampler(graph[key])]
    if not samplers:
        return None
    first = next(
        (key for key in samplers if not any(up in samplers for up in _before(graph, key, "latent"))), samplers[0]
    )
    facts = _sampled(graph, first)
    for key in samplers:
        if key != first:
            facts.left(f"second sampler {key}", _said(graph[key]))
    for key, node in graph.items():
        kind = str(node.get("class_type", ""))
        if key not in samplers and not kind.startswith(_QUIET):
            facts.left(f"node {key}", kind)
    return facts


def _said(node: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in node["inputs"].items() if isinstance(value, (str, int, float))}
    return f"{node.get('class_type')} " + " ".join(f"{name}={value}" for name, value in plain.items())


def _is_sampler(node: Mapping[str, Any]) -> bool:
    inputs, kind = node["inputs"], str(node.get("class_type", ""))
    direct = "steps" in inputs and "sampler_name" in inputs and any(name in inputs for name in _SEEDS)
    return direct or kind.startswith("SamplerCustom")


def _link(graph: Graph, value: object) -> str | None:
    """The node that an input is taken from; None for a value of its own."""
    if isinstance(value, list) and len(value) == 2 and str(value[0]) in graph and isinstance(value[1], int):
        return str(value[0])
    return None


def _before(graph: Graph, start: str, name: str = "") -> Iterator[str]:
    """The nodes that `start` is made from, near ones first; by one input alone where it has a `name`."""
    inputs = graph[start]["inputs"]
    values = [value for key, value in inputs.items() if not name or key.startswith(name)]
    waiting = [link for value in values if (link := _link(graph, value)) is not None]
    seen: set[str] = set()
    while waiting and len(seen) < DEEPEST * 10:
        key = waiting.pop(0)
        if key not in seen:
            seen.add(key)
            yield key
            waiting += [link for value in graph[key]["inputs"].values() if (link := _link(graph, value)) is not None]


def _value(graph: Graph, key: str, *names: str) -> Any:
    """The value of the first of these inputs that a node has, followed to where it stands."""
    for name in names:
        value = graph[key]["inputs"].get(name)
        for _ in range(DEEPEST):
            link = _link(graph, value)
            if link is None:
                break
            inputs = graph[link]["inputs"]
            value = next(
                (inputs[each] for each in (name, "value", "int", "float", *_TEXTS, *_SEEDS) if each in inputs), None
            )
        if value is not None and not isinstance(value, (list, dict)):
            return value
    return None


def _found(graph: Graph, key: str, *names: str) -> Any:
    """A value of the node, or of the nearest one before it that has it."""
    value = _value(graph, key, *names)
    if value is not None:
        return value
    return next((value for each in _before(graph, key) if (value := _value(graph, each, *names)) is not None), None)


def _prompt(graph: Graph, key: str, part: str) -> str:
    """The words behind a sampler's positive or negative conditioning."""
    inputs = graph[key]["inputs"]
    start = _link(graph, inputs.get(part)) or _link(graph, inputs.get("guider"))
    if start is not None and part in graph[start]["inputs"]:
        start = _link(graph, graph[start]["inputs"][part])
    elif start is not None and "conditioning" in graph[start]["inputs"] and part == "positive":
        start = _link(graph, graph[start]["inputs"]["conditioning"])
    elif start is not None and part == "negative" and _link(graph, inputs.get(part)) is None:
        return ""
    for each in [] if start is None else [start, *_before(graph, start)]:
        texts = [_value(graph, each, name) for name in _TEXTS if name in graph[each]["inputs"]]
        found = [text for text in texts if isinstance(text, str)]
        if found:
            return found[0]
    return ""


def _sampled(graph: Graph, key: str) -> Facts:
    """What one sampler made."""
    facts = Facts("ComfyUI", _prompt(graph, key, "positive"), _prompt(graph, key, "negative"))
    for name, names in (
        ("Steps", ("steps",)),
        ("Sampler", ("sampler_name",)),
        ("Schedule type", ("scheduler",)),
        ("CFG scale", ("cfg",)),
        ("Seed", _SEEDS),
    ):
        facts.put(name, _found(graph, key, *names))
    latent = list(_before(graph, key, "latent"))
    empty = next((each for each in latent if {"width", "height"} <= set(graph[each]["inputs"])), None)
    if empty is not None:
        facts.size({side: _value(graph, empty, side) for side in ("width", "height")})
    if any("pixels" in graph[each]["inputs"] or "image" in graph[each]["inputs"] for each in latent):
        facts.put("Denoising strength", _found(graph, key, "denoise"))
    _model(graph, key, facts)
    return facts


def _model(graph: Graph, key: str, facts: Facts) -> None:
    loras: list[str] = []
    for each in _before(graph, key):
        inputs = graph[each]["inputs"]
        name = inputs.get("ckpt_name") or inputs.get("unet_name")
        if isinstance(name, str) and "Model" not in facts.values:
            facts.put("Model", _stem(name))
        if isinstance(inputs.get("lora_name"), str):
            loras.append(each)
        layer = inputs.get("stop_at_clip_layer")
        if isinstance(layer, int) and layer <= -1:
            facts.put("Clip skip", -layer)
        if isinstance(inputs.get("vae_name"), str):
            facts.left("VAE", inputs["vae_name"])
    for each in reversed(loras):
        inputs = graph[each]["inputs"]
        unet = inputs.get("strength_model", 1)
        text = inputs.get("strength_clip", unet)
        if isinstance(unet, (int, float)) and isinstance(text, (int, float)):
            facts.tag(inputs["lora_name"], float(unet), float(text))


def _stem(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors").removesuffix(".ckpt")
