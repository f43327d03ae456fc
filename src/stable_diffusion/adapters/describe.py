"""What an adapter or embedding file is, from names and shapes alone: for `info`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..weights.checkpoints.families import family_of_width
from ..weights.containers.finite import not_finite_in
from ..weights.containers.hashes import adapter_hash, sha256
from ..weights.containers.open import read_tensors
from ..weights.containers.tensors import TensorFile
from .family import adapter_family, is_text
from .keys import group_names, is_adapter, kind_of
from .textual_inversion import BUNDLED, bundled_words, embedding_tensors

STYLES: tuple[tuple[str, str], ...] = (
    ("lora_unet_input_blocks", "kohya, with the block names of single files"),
    ("lora_unet_output_blocks", "kohya, with the block names of single files"),
    ("lora_unet_down_blocks", "kohya"),
    ("lora_unet_up_blocks", "kohya"),
    ("lora_unet_mid_block", "kohya"),
    ("lora_te", "kohya"),
    ("lora_transformer_", "OneTrainer"),
    ("lora_unet_", "kohya"),
    ("lycoris_", "SimpleTuner"),
    ("base_model.model.", "PEFT"),
    ("unet.down.", "this package's own names"),
    ("unet.mid.", "this package's own names"),
    ("unet.up.", "this package's own names"),
    ("text.layers.", "this package's own names"),
    ("unet.", "diffusers"),
    ("transformer.", "diffusers"),
    ("clip_", "OneTrainer"),
    ("t5.", "OneTrainer"),
    ("text_encoder", "diffusers"),
    ("down_blocks.", "diffusers"),
    ("diffusion_model.", "the names of single files"),
    ("model.diffusion_model.", "the names of single files"),
)


def adapter_facts(path: Path, *, hashes: bool = True) -> dict[str, Any] | None:
    """Facts about the adapter or embedding at `path`, `kind` first; None where it is neither.

    `damaged` names the tensors that hold NaN or infinite numbers; such files are small, so that all are looked at.

    Raises ModelFileError where the file cannot be read.
    """
    if not path.is_file():
        return None
    tensors, metadata = read_tensors(path)
    if "lora_controlnet" not in tensors and is_adapter(tensors):
        facts = _adapter(tensors, metadata)
        digest = adapter_hash
    elif embedding_tensors(tensors)[0]:
        facts = _embedding(tensors, metadata)
        digest = sha256
    else:
        return None
    facts = {"kind": facts.pop("kind"), "path": str(path), "container": tensors.kind, **facts}
    facts["damaged"] = not_finite_in(tensors)
    if hashes:
        full = digest(path)
        facts |= {"hash": full, "short_hash": full[:12]}
    shown = {key: value for key, value in metadata.items() if len(value) <= 200}
    return {**facts, "metadata": shown}


def _adapter(tensors: TensorFile, metadata: Mapping[str, str]) -> dict[str, Any]:
    grouped = group_names(tensors)
    kinds = Counter(_kind(tensors, names) for names in grouped.groups.values())
    kinds.pop("", None)
    in_text = sum(map(is_text, grouped.groups))
    words, unread = bundled_words(tensors)
    family, guess = adapter_family(tensors, grouped.groups, metadata)
    return {
        "kind": "adapter",
        "adapter": ", ".join(kinds),
        "layers": dict(kinds),
        "networks": {"denoiser": len(grouped.groups) - in_text, "text encoder": in_text},
        "rank": _span(_ranks(tensors, grouped.groups.values())),
        "names": _style(grouped.groups),
        "for": family,
        "dtype": _dtype(tensors),
        "title": metadata.get("modelspec.title", metadata.get("ss_output_name", "")),
        "words": metadata.get("modelspec.trigger_phrase", ""),
        **({"bundled_words": [word.names[0] for word in words]} if words else {}),
        "unknown_tensors": len(unread) + sum(not name.startswith(BUNDLED) for name in grouped.leftovers),
        "guesses": [guess] if guess else [],
    }


def _kind(tensors: TensorFile, names: Mapping[str, str]) -> str:
    """The kind of a group as people call it; an empty text for one that is incomplete."""
    kind = kind_of(names) or ""
    blocks = names.get("oft_blocks", names.get("oft_diag"))
    if kind == "OFT" and blocks is not None and len(tensors.info(blocks).shape) == 4:
        kind = "BOFT"
    if kind == "LoRA" and {"magnitude", "magnitude_rows"} & set(names):
        kind = "DoRA"
    return kind


def _ranks(tensors: TensorFile, groups: Iterable[Mapping[str, str]]) -> set[int]:
    firsts = ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b")
    found = (tensors.info(names[what]).shape for names in groups for what in firsts if what in names)
    return {shape[0] for shape in found if shape}


def _span(numbers: set[int]) -> str:
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _style(stems: Iterable[str]) -> str:
    """The spelling that most stems have."""
    styles = Counter(next((style for start, style in STYLES if stem.startswith(start)), "") for stem in stems)
    if any(".processor." in stem for stem in stems):
        return "diffusers, as before version 0.18"
    styles.pop("", None)
    return styles.most_common(1)[0][0] if styles else "no known style"


def _embedding(tensors: TensorFile, metadata: Mapping[str, str]) -> dict[str, Any]:
    found, token = embedding_tensors(tensors)
    shapes = [tensors.info(name).shape for name in found.values()]
    widths = [shape[-1] for shape in shapes]
    return {
        "kind": "textual inversion embedding",
        "vectors": shapes[0][0] if len(shapes[0]) == 2 else 1,
        "widths": widths,
        "word": token or metadata.get("name", ""),
        # 1280 is the second encoder of XL alone; 2048 would be both together.
        "for": family_of_width(2048 if len(found) == 2 or widths == [1280] else widths[0]),
        "dtype": _dtype(tensors),
    }


def _dtype(tensors: TensorFile) -> str:
    counts: Counter[str] = Counter()
    for name in tensors:
        counts[str(tensors.info(name).dtype).removeprefix("torch.")] += tensors.info(name).count
    return counts.most_common(1)[0][0] if counts else "none"
