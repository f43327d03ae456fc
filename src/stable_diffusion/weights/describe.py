"""What a model file is, or a file of one network, without loading it: for `info`.

A model is described from the same blueprint that it is built from.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UnknownModel
from ..models.mmdit import MMDiTConfig
from ..models.tiny_vae import TinyVAEConfig
from .checkpoints.blueprint import Blueprint, count_under, main_dtype
from .checkpoints.components import read_text, vae_plan
from .checkpoints.folder import INDEX, component
from .checkpoints.native import is_native
from .checkpoints.places import CLIP_END, T5_ENDS
from .containers.hashes import SHORT, known_sha256, legacy_hash
from .containers.open import read_tensors
from .containers.tensors import TensorFile
from .foreign import refuse_foreign
from .load import read_blueprint
from .networks.clip_vision import CONFIG, clip_vision_layout

EMA = "model_ema."
LONGEST = 500
"""Letters of the longest word of a header that is shown."""


def inspect(path: str | os.PathLike[str], *, hashes: bool = True, **overrides: Any) -> dict[str, Any]:
    """What the model at `path` is (see `describe`), from names and shapes alone; only hashing reads the whole file.

    `overrides` are those of `load_parts`. Raises what `load_parts` raises for a file that is not a model: UnknownModel
    carries the reason for each family, and says so where the file is a LoRA, an embedding or another known kind.
    """
    return describe(read_blueprint(path, **overrides), hashes=hashes)


def describe(found: Blueprint, *, hashes: bool = True) -> dict[str, Any]:
    """Facts about a model, ready for JSON.

    `parameters` counts weights by network, `averaged` those of a second, averaged copy (EMA) that is not used. `dtype`
    is how most weights of the denoising network are stored. Hashes are None for folders, and where they were not asked
    for.
    """
    defaults, unet = found.defaults, found.networks["unet"]
    file, metadata = unet.tensors.file, found.metadata
    counts = {name: count_under(plan.tensors.file, plan.tensors.prefix) for name, plan in found.shown()}
    if isinstance(unet.config, MMDiTConfig):
        counts = {"mmdit" if name == "unet" else name: count for name, count in counts.items()}
    hashed = hashes and found.path.is_file()
    full = known_sha256(found.path) if hashed else None
    native = found.layout == "native"
    return {
        "path": str(found.path),
        "layout": found.layout,
        "container": found.container,
        "family": found.family,
        "label": found.label,
        "prediction": found.prediction,
        "width": defaults.width,
        "height": defaults.height,
        "steps": defaults.steps,
        "guidance": defaults.guidance,
        "sampler": defaults.sampler,
        "dtype": metadata.get("packing", main_dtype(file, "")) if native else main_dtype(file, unet.tensors.prefix),
        "parameters": counts,
        "zero_terminal_snr": bool(found.schedule.to_config().get("zero_terminal_snr")),
        "averaged": count_under(file, EMA),
        "name": found.card.name,
        "licence": found.card.licence,
        "guesses": list(found.guesses),
        "sha256": full,
        "short_hash": None if full is None else full[:SHORT],
        "legacy_hash": legacy_hash(found.path) if hashed else None,
        "metadata": {
            name: value
            for name, value in metadata.items()
            if len(value) <= LONGEST and name not in ("config", "tokenizer")
        },
    }


# --- files of one network --------------------------------------------------------------------------------------------

DENOISER = ("attn2.to_k", "joint_blocks.", "transformer_blocks.", "double_blocks.", "input_blocks.")
"""Pieces of names that a whole model, a denoiser or an adapter of one has, and no other network."""
TEXT_KINDS = {
    "transformers": "CLIP, in the names of transformers",
    "cpp": "CLIP, in the names of transformers",
    "openclip": "OpenCLIP",
    "t5": "T5",
    "t5-llama": "T5, in the names of llama.cpp",
}
TEXTS = {
    768: "Stable Diffusion 1.x; the first of XL and 3 (CLIP-L)",
    1024: "Stable Diffusion 2.x (OpenCLIP-H)",
    1280: "the second of Stable Diffusion XL and 3 (OpenCLIP-G)",
    4096: "the third of Stable Diffusion 3 (T5-XXL)",
}
"""Width of a text encoder -> the models that have one of this width."""
LATENTS = {4: "Stable Diffusion 1.x, 2.x or XL", 16: "Stable Diffusion 3"}
"""Channels of latents -> the models that make pictures of them."""


def refuse_other_kinds(path: Path) -> None:
    """UnknownModel where the file at `path` is one that loading refuses for its kind or its packing; see `foreign`."""
    if not path.is_dir():
        tensors, metadata = read_tensors(path)
        if not is_native(metadata):
            refuse_foreign(tensors)


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
        full = known_sha256(path)
        facts |= {"hash": full, "short_hash": full[:SHORT]}
    return facts


def _image_tower(path: Path, tensors: TensorFile) -> dict[str, Any] | None:
    layout = clip_vision_layout(tensors)
    if layout is None:
        return None
    names = "OpenCLIP" if layout[0] else "transformers"
    return {"kind": "CLIP image tower", "names": names, "for": "IP-Adapters", "use": "--image-encoder"}


def _autoencoder(path: Path, tensors: TensorFile) -> dict[str, Any] | None:
    try:
        config = vae_plan(tensors).config
    except UnknownModel:
        return None
    tiny, channels = isinstance(config, TinyVAEConfig), config.latent_channels
    family = LATENTS.get(channels, f"a model whose latents have {channels} channels")
    return {
        "kind": "tiny autoencoder" if tiny else "autoencoder",
        "for": family,
        "latents": f"{channels} channels",
        "use": "--vae, or --preview-vae for the preview alone" if tiny else "--vae",
        "guesses": [f"{family} is a guess from {channels} channels of latents; others have them too"],
    }


def _text_encoder(path: Path, tensors: TensorFile) -> dict[str, Any] | None:
    try:
        text, layout = read_text(path)
    except UnknownModel:
        return None
    ends = (CLIP_END, *T5_ENDS)
    width = next(text.info(name).shape[-1] for name in text if name.endswith(ends))
    family = TEXTS.get(width, f"a model whose text encoder has width {width}")
    return {"kind": "text encoder", "names": TEXT_KINDS[layout], "for": family, "use": "--text-encoder"}


LOOKS: tuple[Callable[[Path, TensorFile], dict[str, Any] | None], ...] = (_image_tower, _autoencoder, _text_encoder)
