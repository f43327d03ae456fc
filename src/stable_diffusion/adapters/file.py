"""Reading an adapter file: its groups of tensors by stem, their alphas, and its hash; nothing of the model yet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ..errors import BrokenModel, UnknownModel
from ..weights.containers.hashes import adapter_hash
from ..weights.containers.open import existing, read_tensors
from ..weights.containers.tensors import TensorFile
from ..weights.foreign import refuse_foreign
from ..weights.identify import identify
from .formulas.oft_columns import TERMS
from .keys import group_names, kind_of

PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
FOLDER_FILES = ("pytorch_lora_weights.safetensors", PEFT_FILES[0], "pytorch_lora_weights.bin", PEFT_FILES[1])
"""What an adapter's folder holds, by diffusers and PEFT."""
PEFT_CONFIG = "adapter_config.json"
THIN = ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b")
"""Tensors that have as many rows as the rank."""
NUMBERS = ("alpha", "on_input")
MAX_TERMS, MAX_ALPHA = 64, 2**20
"""Most terms of a series (files have 5), and the largest alpha (files have about the rank)."""


@dataclass(frozen=True)
class Group:
    """The tensors of one stem by what they are, and the numbers among them."""

    tensors: dict[str, Tensor]
    alpha: float | None = None
    on_input: bool = False
    terms: int = TERMS


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
        """As A1111 has it: of the file without its header, unless the header itself has it; 64 digits."""
        written = self.metadata.get("sshs_model_hash", "").strip().lower()
        return written if len(written) == 64 and set(written) <= set("0123456789abcdef") else adapter_hash(self.path)


def read_adapter(path: str | os.PathLike[str]) -> AdapterFile:
    """The adapter at `path`, a file or the folder that diffusers or PEFT wrote.

    Raises ModelFileError where there is nothing or the file is damaged, UnknownModel where it is something else.
    """
    place = existing(path)
    if place.is_dir():
        place = next((place / name for name in FOLDER_FILES if (place / name).is_file()), place)
    tensors, metadata = read_tensors(place)
    refuse_foreign(tensors)
    grouped = group_names(tensors)
    whole = {stem: names for stem, names in grouped.groups.items() if kind_of(names) is not None}
    if not whole:
        kind = identify({name: tensors.info(name).shape for name in tensors}, metadata)
        what = f"{place} is {kind}, not an adapter" if kind else f"{place} holds no adapter that is known here"
        raise UnknownModel(f"{what}; expected a LoRA or one of its relatives (LoHa, LoKr, OFT, IA3, GLoRA, DoRA)")
    partial = [name for stem, names in grouped.groups.items() if stem not in whole for name in names.values()]
    settings = _read_settings(place, metadata)
    groups = {stem: _group(tensors, stem, names, settings) for stem, names in whole.items()}
    return AdapterFile(place, groups, (*grouped.leftovers, *partial), metadata)


def _group(tensors: TensorFile, stem: str, names: Mapping[str, str], settings: _Settings) -> Group:
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
    thin = next((found[what] for what in THIN if what in found), None)
    if alpha is None and thin is not None and thin.dim():
        alpha = settings.alpha(stem, int(thin.shape[0]))
    if alpha is None and thin is None and {"lokr_w1", "lokr_w2"} <= set(found):
        found["lokr_w1"] = found["lokr_w1"].float() * settings.whole_scale(stem)
    terms = TERMS
    if "oft_columns" in found:
        terms, alpha = settings.rotation(stem)
    if alpha is not None and abs(alpha) > MAX_ALPHA:
        raise BrokenModel(f"{tensors.path}: the alpha of {stem[:80]!r} is {alpha:g}; at most {MAX_ALPHA} is plausible")
    return Group(found, alpha, numbers.get("on_input", 0.0) != 0, terms)


@dataclass(frozen=True)
class _Settings:
    """Alpha and rotations as they stand beside the tensors, by component ("unet", "text_encoder", "" for any)."""

    by_component: Mapping[str, Mapping[str, Any]]

    def _of(self, stem: str) -> Iterator[Mapping[str, Any]]:
        """The settings of a stem's component."""
        for component, settings in self.by_component.items():
            if not component or stem.startswith(f"{component}."):
                yield settings

    def rotation(self, stem: str) -> tuple[int, float | None]:
        """(terms of the series, 0 for the exact transform; the constraint of COFT or None) of PEFT's OFT."""
        for settings in self._of(stem):
            terms: Any = settings.get("num_cayley_neumann_terms", TERMS)
            limit: Any = settings.get("eps", 6e-5)
            known = type(terms) is int and 1 <= terms <= MAX_TERMS
            count = 0 if settings.get("use_cayley_neumann") is False else terms if known else TERMS
            constrained = settings.get("coft") is True and _is_number(limit)
            return count, float(limit) if constrained else None
        return TERMS, None

    def alpha(self, stem: str, rank: int) -> float | None:
        """The alpha of a stem that has none of its own, such that alpha / rank is the scale; None if unknown."""
        for settings in self._of(stem):
            found = _pattern(settings.get("alpha_pattern"), stem)
            alpha = _alpha(settings) if found is None else found
            if _is_number(alpha):
                return float(alpha) * (rank**0.5 if settings.get("use_rslora") is True else 1.0)
        return None

    def whole_scale(self, stem: str) -> float:
        """alpha / rank of a PEFT LoKr of two whole matrices, whose rank only the settings have; 1 where they do not."""
        for settings in self._of(stem):
            patterns = (_pattern(settings.get(name), stem) for name in ("alpha_pattern", "rank_pattern"))
            plain = (_alpha(settings), settings.get("r"))
            alpha, rank = (own if found is None else found for found, own in zip(patterns, plain, strict=True))
            if _is_number(alpha) and _is_number(rank) and rank >= 1:
                return float(alpha) / float(rank)
        return 1.0


def _alpha(settings: Mapping[str, Any]) -> Any:
    """PEFT calls it `lora_alpha` for a LoRA, and `alpha` for LoHa and LoKr."""
    return settings.get("lora_alpha", settings.get("alpha"))


def _is_number(value: object) -> TypeGuard[float]:
    """Whether a setting is a number that an alpha can be."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_ALPHA


def _pattern(patterns: object, stem: str) -> Any:
    """The value of the pattern that a stem is, or ends in after a dot."""
    if not isinstance(patterns, dict):
        return None
    return next((value for name, value in patterns.items() if stem == name or stem.endswith(f".{name}")), None)


def _read_settings(path: Path, metadata: Mapping[str, str]) -> _Settings:
    """diffusers: `lora_adapter_metadata`, with the keys `unet.lora_alpha` ...; PEFT: adapter_config.json beside it."""
    config = path.parent / PEFT_CONFIG
    if path.name in PEFT_FILES and config.is_file() and config.stat().st_size < 2**20:
        return _Settings({"": _parsed(config.read_text(encoding="utf-8", errors="replace"))})
    settings: dict[str, dict[str, Any]] = {}
    for key, value in _parsed(metadata.get("lora_adapter_metadata", "{}")).items():
        component, _, name = key.rpartition(".")
        settings.setdefault(component, {})[name] = value
    return _Settings(settings)


def _parsed(text: str) -> dict[str, Any]:
    """A JSON object; an empty one where the text is something else, since all that it holds is a hint."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
