"""The kinds of nodes that a graph may have here: their inputs, outputs, ranges, and how ComfyUI describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...request.names import SAMPLERS, SCHEDULES
from ..library import Library

MOST_SEED = 2**63 - 1
OWN_VAE = "Automatic"
"""The one VAE of the list: the checkpoint's own."""
UPSCALE = {
    "nearest-exact": "Latent (nearest-exact)",
    "bilinear": "Latent",
    "bicubic": "Latent (bicubic)",
    "area": "Latent (antialiased)",
}
"""ComfyUI's ways to enlarge a latent -> ours."""
SWITCH = ("enable", "disable")
LINKS = ("MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "IMAGE", "MASK")


@dataclass(frozen=True)
class Input:
    """One input of a node. `kind` is a type of links, INT, FLOAT, STRING, or CHOICE with a list or the name of one."""

    name: str
    kind: str
    default: Any = None
    low: float | None = None
    high: float | None = None
    choices: str | tuple[str, ...] = ()
    required: bool = True


@dataclass(frozen=True)
class NodeKind:
    """A class of nodes; `makes` are the types of its outputs."""

    name: str
    title: str
    category: str
    inputs: tuple[Input, ...]
    makes: tuple[str, ...] = ()
    is_output: bool = False


def _side(name: str, default: int = 512) -> Input:
    return Input(name, "INT", default, 16, 8192)


def _choice(name: str, choices: str | tuple[str, ...], default: str | None = None) -> Input:
    return Input(name, "CHOICE", default, choices=choices)


def _links(**kinds: str) -> tuple[Input, ...]:
    return tuple(Input(name, kind) for name, kind in kinds.items())


_SAMPLED = _links(model="MODEL", positive="CONDITIONING", negative="CONDITIONING", latent_image="LATENT")
_SAMPLER = (
    Input("steps", "INT", 20, 1, 10000),
    Input("cfg", "FLOAT", 8.0, 0.0, 100.0),
    _choice("sampler_name", "samplers"),
    _choice("scheduler", "schedulers"),
)
_LIST = (
    NodeKind(
        "CheckpointLoaderSimple",
        "Load Checkpoint",
        "loaders",
        (_choice("ckpt_name", "checkpoints"),),
        ("MODEL", "CLIP", "VAE"),
    ),
    NodeKind("VAELoader", "Load VAE", "loaders", (_choice("vae_name", (OWN_VAE,)),), ("VAE",)),
    NodeKind(
        "LoraLoader",
        "Load LoRA",
        "loaders",
        (
            *_links(model="MODEL", clip="CLIP"),
            _choice("lora_name", "loras"),
            Input("strength_model", "FLOAT", 1.0, -100.0, 100.0),
            Input("strength_clip", "FLOAT", 1.0, -100.0, 100.0),
        ),
        ("MODEL", "CLIP"),
    ),
    NodeKind(
        "CLIPSetLastLayer",
        "CLIP Set Last Layer",
        "conditioning",
        (*_links(clip="CLIP"), Input("stop_at_clip_layer", "INT", -1, -24, -1)),
        ("CLIP",),
    ),
    NodeKind(
        "CLIPTextEncode",
        "CLIP Text Encode (Prompt)",
        "conditioning",
        (Input("text", "STRING", ""), *_links(clip="CLIP")),
        ("CONDITIONING",),
    ),
    NodeKind(
        "EmptyLatentImage",
        "Empty Latent Image",
        "latent",
        (_side("width"), _side("height"), Input("batch_size", "INT", 1, 1, 4096)),
        ("LATENT",),
    ),
    NodeKind(
        "KSampler",
        "KSampler",
        "sampling",
        (
            *_SAMPLED[:1],
            Input("seed", "INT", 0, 0, MOST_SEED),
            *_SAMPLER,
            *_SAMPLED[1:],
            Input("denoise", "FLOAT", 1.0, 0.0, 1.0),
        ),
        ("LATENT",),
    ),
    NodeKind(
        "KSamplerAdvanced",
        "KSampler (Advanced)",
        "sampling",
        (
            *_SAMPLED[:1],
            _choice("add_noise", SWITCH),
            Input("noise_seed", "INT", 0, 0, MOST_SEED),
            *_SAMPLER,
            *_SAMPLED[1:],
            Input("start_at_step", "INT", 0, 0, 10000),
            Input("end_at_step", "INT", 10000, 0, 10000),
            _choice("return_with_leftover_noise", ("disable", "enable")),
        ),
        ("LATENT",),
    ),
    NodeKind("VAEDecode", "VAE Decode", "latent", _links(samples="LATENT", vae="VAE"), ("IMAGE",)),
    NodeKind("VAEEncode", "VAE Encode", "latent", _links(pixels="IMAGE", vae="VAE"), ("LATENT",)),
    NodeKind(
        "SetLatentNoiseMask",
        "Set Latent Noise Mask",
        "latent/inpaint",
        _links(samples="LATENT", mask="MASK"),
        ("LATENT",),
    ),
    NodeKind(
        "LatentUpscale",
        "Upscale Latent",
        "latent",
        (
            *_links(samples="LATENT"),
            _choice("upscale_method", tuple(UPSCALE)),
            Input("width", "INT", 512, 0, 8192),
            Input("height", "INT", 512, 0, 8192),
            _choice("crop", ("disabled", "center")),
        ),
        ("LATENT",),
    ),
    NodeKind(
        "LatentUpscaleBy",
        "Upscale Latent By",
        "latent",
        (
            *_links(samples="LATENT"),
            _choice("upscale_method", tuple(UPSCALE)),
            Input("scale_by", "FLOAT", 1.5, 0.01, 8.0),
        ),
        ("LATENT",),
    ),
    NodeKind("LoadImage", "Load Image", "image", (_choice("image", "images"),), ("IMAGE", "MASK")),
    NodeKind(
        "SaveImage",
        "Save Image",
        "image",
        (*_links(images="IMAGE"), Input("filename_prefix", "STRING", "ComfyUI", required=False)),
        is_output=True,
    ),
    NodeKind("PreviewImage", "Preview Image", "image", _links(images="IMAGE"), is_output=True),
)
KINDS: dict[str, NodeKind] = {kind.name: kind for kind in _LIST}
"""By name."""
EMPTY = NodeKind("UNETLoader", "Load Diffusion Model", "advanced/loaders", (_choice("unet_name", ()),), ("MODEL",))
"""Described, for SillyTavern reads its list, but there is nothing in it and no graph may have it."""


def lists_of(library: Library, images: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The lists that inputs choose from; `images` are the names of uploaded pictures."""
    default = library.default_model().title
    titles = [entry.title for entry in library.models.entries().values()]
    return {
        "checkpoints": (default, *(title for title in titles if title != default)),
        "loras": tuple(entry.title for entry in library.loras.entries().values()),
        "samplers": tuple(SAMPLERS),
        "schedulers": tuple(SCHEDULES),
        "images": images,
    }


def node_info(kind: NodeKind, lists: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """A class of nodes as ComfyUI describes it."""
    parts: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
    for each in kind.inputs:
        parts["required" if each.required else "optional"][each.name] = _input_info(each, lists)
    return {
        "input": {name: inputs for name, inputs in parts.items() if inputs},
        "input_order": {name: list(inputs) for name, inputs in parts.items() if inputs},
        "output": list(kind.makes),
        "output_is_list": [False] * len(kind.makes),
        "output_name": list(kind.makes),
        "name": kind.name,
        "display_name": kind.title,
        "description": "",
        "python_module": "nodes",
        "category": kind.category,
        "output_node": kind.is_output,
    }


def _input_info(each: Input, lists: dict[str, tuple[str, ...]]) -> list[Any]:
    if each.kind in LINKS:
        return [each.kind]
    if each.kind == "CHOICE":
        return [list(choices_of(each, lists)), {}]
    options: dict[str, Any] = {"default": each.default}
    if each.kind == "STRING":
        return ["STRING", {**options, "multiline": each.name == "text"}]
    return [each.kind, {**options, "min": each.low, "max": each.high}]


def choices_of(each: Input, lists: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What an input may be."""
    return lists[each.choices] if isinstance(each.choices, str) else each.choices
