"""Reading an adapter file: its groups of tensors by stem, their alphas, and its hash; nothing of the model yet."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BrokenModel, UnknownModel
from ..weights.adapter_keys import group_names, kind_of
from ..weights.files import existing, read_tensors
from ..weights.hashes import adapter_hash
from ..weights.other_kinds import other_kind
from ..weights.tensors import TensorFile

FOLDER_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", "pytorch_lora_weights.bin")
"""What an adapter's folder holds, by diffusers and PEFT."""
PEFT_CONFIG = "adapter_config.json"
NUMBERS = ("alpha", "on_input")
MAX_ALPHA = 2**20
"""Largest alpha; those of files are about as large as the rank, or its square root times that."""


@dataclass(frozen=True)
class Group:
    """The tensors of one stem by what they are, and the numbers among them."""

    tensors: dict[str, Tensor]
    alpha: float | None = None
    on_input: bool = False


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as its file has it. `unknown` are names that are no part of an adapter known here."""

    path: Path
    groups: dict[str, Group]
    unknown: tuple[str, ...]
    metadata: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """The file's name without its ending; the folder's for a file whose name is always the same."""
        return self.path.parent.name if self.path.name in FOLDER_FILES else self.path.stem

    @property
    def hash(self) -> str:
        """As A1111 has it: of the file without its header, unless the header itself tells it; 64 digits."""
        told = self.metadata.get("sshs_model_hash", "").strip().lower()
        return told if len(told) == 64 and set(told) <= set("0123456789abcdef") else adapter_hash(self.path)


def read_adapter(path: str | os.PathLike[str]) -> AdapterFile:
    """The adapter at `path`, a file or the folder that diffusers or PEFT wrote.

    Raises ModelFileError where there is nothing or the file is damaged, UnknownModel where it is something else.
    """
    place = existing(path)
    if place.is_dir():
        place = next((place / name for name in FOLDER_FILES if (place / name).is_file()), place)
    tensors, metadata = read_tensors(place)
    grouped = group_names(tensors)
    whole = {stem: names for stem, names in grouped.groups.items() if kind_of(names) is not None}
    if not whole:
        kind = other_kind({name: tensors.info(name).shape for name in tensors}, metadata)
        what = f"{place} is {kind}, not an adapter" if kind else f"{place} holds no adapter that is known here"
        raise UnknownModel(f"{what}; expected a LoRA or one of its relatives (LoHa, LoKr, OFT, IA3, GLoRA, DoRA)")
    partial = [name for stem, names in grouped.groups.items() if stem not in whole for name in names.values()]
    alphas = _told_alphas(place, metadata)
    groups = {stem: _group(tensors, stem, names, alphas) for stem, names in whole.items()}
    return AdapterFile(place, groups, (*grouped.leftovers, *partial), metadata)


def _group(tensors: TensorFile, stem: str, names: Mapping[str, str], alphas: _Alphas) -> Group:
    found: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for what, name in names.items():
        if not tensors.info(name).dtype.is_floating_point and what not in NUMBERS:
            raise BrokenModel(
                f"{tensors.path}: tensor {name[:80]!r} is {tensors.info(name).dtype}; floats are expected"
            )
        if what in NUMBERS and tensors.info(name).count != 1:
            raise BrokenModel(f"{tensors.path}: {name[:80]!r} has {tensors.info(name).count} elements; expected 1")
        value = tensors[name]
        if not bool(torch.isfinite(value.float()).all()):
            raise BrokenModel(f"{tensors.path}: tensor {name[:80]!r} holds numbers that are not finite")
        if what in NUMBERS:
            numbers[what] = float(value)
        else:
            found[what] = value.clone()  # the file may go away or change while the adapter is attached
    alpha = numbers.get("alpha")
    if alpha is None and "down" in found and found["down"].dim():
        alpha = alphas.of(stem, int(found["down"].shape[0]))
    if alpha is not None and abs(alpha) > MAX_ALPHA:
        raise BrokenModel(f"{tensors.path}: the alpha of {stem[:80]!r} is {alpha:g}; at most {MAX_ALPHA} is plausible")
    return Group(found, alpha, numbers.get("on_input", 0.0) != 0)


@dataclass(frozen=True)
class _Alphas:
    """What the settings beside the tensors say about alpha, by component ("unet", "text_encoder", "" for any)."""

    settings: Mapping[str, Mapping[str, Any]]

    def of(self, stem: str, rank: int) -> float | None:
        """The alpha of a stem that has none of its own, such that alpha / rank is the scale; None where not told."""
        for component, settings in self.settings.items():
            if component and not stem.startswith(f"{component}."):
                continue
            found = _pattern(settings.get("alpha_pattern"), stem)
            alpha = settings.get("lora_alpha") if found is None else found
            if isinstance(alpha, (int, float)) and not isinstance(alpha, bool) and abs(alpha) <= MAX_ALPHA:
                return float(alpha) * (rank**0.5 if settings.get("use_rslora") is True else 1.0)
        return None


def _pattern(patterns: object, stem: str) -> Any:
    """The value of the pattern that a stem is, or ends in after a dot."""
    if not isinstance(patterns, dict):
        return None
    return next((value for name, value in patterns.items() if stem == name or stem.endswith(f".{name}")), None)


def _told_alphas(path: Path, metadata: Mapping[str, str]) -> _Alphas:
    """diffusers: `lora_adapter_metadata`, with the keys `unet.lora_alpha` ...; PEFT: adapter_config.json beside it."""
    config = path.parent / PEFT_CONFIG
    if path.name == "adapter_model.safetensors" and config.is_file() and config.stat().st_size < 2**20:
        return _Alphas({"": _parsed(config.read_text(encoding="utf-8", errors="replace"))})
    settings: dict[str, dict[str, Any]] = {}
    for key, value in _parsed(metadata.get("lora_adapter_metadata", "{}")).items():
        component, _, name = key.rpartition(".")
        settings.setdefault(component, {})[name] = value
    return _Alphas(settings)


def _parsed(text: str) -> dict[str, Any]:
    """A JSON object; an empty one where the text is something else, since all that it holds is a hint."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
