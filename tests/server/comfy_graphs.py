"""Graphs as clients of ComfyUI send them."""

from __future__ import annotations

import copy
from typing import Any

from served import FAST

Graph = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def text_graph(prompt: str = "a red apple", negative: str = "", **sampler: Any) -> Graph:
    """The graph that ComfyUI itself, SillyTavern and Open WebUI begin with; `sampler` are inputs of its KSampler."""
    inputs = {"seed": 7, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    return {
        "3": node("KSampler", **inputs, **links) | {"_meta": {"title": "KSampler"}},
        "4": node("CheckpointLoaderSimple", ckpt_name=FAST),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "6": node("CLIPTextEncode", text=prompt, clip=["4", 1]),
        "7": node("CLIPTextEncode", text=negative, clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="SillyTavern", images=["8", 0]),
    } | ({} if not sampler else {"3": node("KSampler", **{**inputs, **links, **sampler})})


def picture_graph(name: str, *, masked: bool = False, denoise: float = 0.5) -> Graph:
    """From an uploaded picture; with `masked` its transparent part alone."""
    graph = text_graph("a worm", denoise=denoise)
    graph["10"] = node("LoadImage", image=name)
    graph["5"] = node("VAEEncode", pixels=["10", 0], vae=["4", 2])
    if masked:
        graph["11"] = node("SetLatentNoiseMask", samples=["5", 0], mask=["10", 1])
        graph["3"]["inputs"]["latent_image"] = ["11", 0]
    return graph


def hires_graph(**upscale: Any) -> Graph:
    """Two samplers, the latent enlarged between them."""
    graph = text_graph()
    graph["12"] = node("LatentUpscaleBy", samples=["3", 0], upscale_method="nearest-exact", scale_by=1.5)
    if upscale:
        graph["12"] = node("LatentUpscale", samples=["3", 0], upscale_method="bilinear", crop="disabled", **upscale)
    graph["13"] = copy.deepcopy(graph["3"])
    graph["13"]["inputs"] |= {"latent_image": ["12", 0], "denoise": 0.5}
    graph["8"]["inputs"]["samples"] = ["13", 0]
    return graph


def advanced_graph(start: int = 0, end: int = 10_000) -> Graph:
    """KSamplerAdvanced in the place of KSampler."""
    graph = text_graph()
    inputs = graph["3"]["inputs"]
    del inputs["denoise"]
    inputs["noise_seed"] = inputs.pop("seed")
    more = {"add_noise": "enable", "return_with_leftover_noise": "disable", "start_at_step": start, "end_at_step": end}
    graph["3"] = node("KSamplerAdvanced", **inputs, **more)
    return graph


def lora_graph(strength: float = 0.8) -> Graph:
    graph = text_graph()
    graph["20"] = node(
        "LoraLoader",
        model=["4", 0],
        clip=["4", 1],
        lora_name="ink.safetensors",
        strength_model=strength,
        strength_clip=0.5,
    )
    graph["21"] = node("CLIPSetLastLayer", clip=["20", 1], stop_at_clip_layer=-2)
    graph["3"]["inputs"]["model"] = ["20", 0]
    for each in ("6", "7"):
        graph[each]["inputs"]["clip"] = ["21", 0]
    return graph
