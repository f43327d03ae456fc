"""What a file of one network is (autoencoder, text encoder, image tower), from names and shapes alone: for `info`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UnknownModel
from .checkpoints.folder import INDEX, component
from .checkpoints.native import is_native
from .checkpoints.separate import VAE_PREFIXES, read_text, vae_kind
from .containers.hashes import SHORT, sha256
from .containers.open import read_tensors
from .containers.tensors import TensorFile
from .describe import count_under, main_dtype
from .networks.clip_vision import CONFIG, clip_vision_layout
from .networks.shapes import Shapes
from .networks.tiny_vae import tiny_layout

DENOISER = ("attn2.to_k", "joint_blocks.", "transformer_blocks.", "double_blocks.", "input_blocks.")
"""Pieces of names that a whole model, a denoiser or an adapter of one has, and no other network."""
TEXT_KINDS = {"transformers": "CLIP, in the names of transformers", "openclip": "OpenCLIP", "t5": "T5"}
TEXTS = {
    768: "Stable Diffusion 1.x; the first of XL and 3 (CLIP-L)",
    1024: "Stable Diffusion 2.x (OpenCLIP-H)",
    1280: "the second of Stable Diffusion XL and 3 (OpenCLIP-G)",
    4096: "the third of Stable Diffusion 3 (T5-XXL)",
}
"""Width of a text encoder -> the models that have one of this width."""
LATENTS = {4: "Stable Diffusion 1.x, 2.x or XL", 16: "Stable Diffusion 3"}
"""Channels of latents -> the models that paint them."""


def part_facts(path: Path, *, hashes: bool = True) -> dict[str, Any] | None:
    """Facts about the network at `path`, a file or the folder of one component, `kind` first; None for other files.

    Raises ModelFileError where the file cannot be read.
    """
    if path.is_dir() and (not (path / CONFIG).is_file() or (path / INDEX).is_file()):
        return None
    tensors, metadata = (component(path), {}) if path.is_dir() else read_tensors(path)
    if is_native(metadata) or any(piece in name for name in tensors for piece in DENOISER):
        return None
    found = next((facts for look in LOOKS if (facts := look(path, tensors)) is not None), None)
    if found is None:
        return None
    facts = {"kind": found.pop("kind"), "path": str(path), "container": tensors.kind, **found}
    facts |= {"dtype": main_dtype(tensors, ""), "parameters": {"network": count_under(tensors, "")}}
    if hashes and path.is_file():
        full = sha256(path)
        facts |= {"hash": full, "short_hash": full[:SHORT]}
    return facts


def _image_tower(path: Path, tensors: TensorFile) -> dict[str, Any] | None:
    layout = clip_vision_layout(tensors)
    if layout is None:
        return None
    names = "OpenCLIP" if layout[0] else "transformers"
    return {"kind": "CLIP image tower", "names": names, "for": "IP-Adapters", "use": "--image-encoder"}


def _autoencoder(path: Path, tensors: TensorFile) -> dict[str, Any] | None:
    prefix = next((prefix for prefix in VAE_PREFIXES if any(name.startswith(prefix) for name in tensors)), "")
    shapes: Shapes = {
        name.removeprefix(prefix): tensors.info(name).shape for name in tensors if name.startswith(prefix)
    }
    try:
        _, config, _ = vae_kind(path, shapes)
    except UnknownModel:
        return None
    tiny = tiny_layout(shapes) is not None
    family = LATENTS.get(config.latent_channels, f"a model whose latents have {config.latent_channels} channels")
    doubt = f"{family} is a guess from {config.latent_channels} channels of latents; others have them too"
    return {
        "kind": "tiny autoencoder" if tiny else "autoencoder",
        "for": family,
        "latents": f"{config.latent_channels} channels",
        "use": "--vae, or --preview-vae for the preview alone" if tiny else "--vae",
        "guesses": [doubt],
    }


def _text_encoder(path: Path, tensors: TensorFile) -> dict[str, Any] | None:
    try:
        text, layout = read_text(path)
    except UnknownModel:
        return None
    ends = ("token_embedding.weight", "shared.weight")
    width = next(text.info(name).shape[-1] for name in text if name.endswith(ends))
    family = TEXTS.get(width, f"a model whose text encoder has width {width}")
    return {"kind": "text encoder", "names": TEXT_KINDS[layout], "for": family, "use": "--text-encoder"}


LOOKS: tuple[Callable[[Path, TensorFile], dict[str, Any] | None], ...] = (_image_tower, _autoencoder, _text_encoder)
