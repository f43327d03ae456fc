"""Reading an adapter file: its groups of tensors by stem, their alphas, and its hash; nothing of the model yet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ..errors import BrokenModel, UnknownModel, brief
from ..weights.containers.hashes import adapter_hash
from ..weights.containers.open import existing, read_tensors
from ..weights.containers.tensors import TensorFile
from ..weights.foreign import refuse_foreign
from ..weights.identify import identify
from .family import adapter_family
from .formulas.oft_columns import TERMS
from .keys import IP_ADAPTER, foreign_kind, group_names, kind_of
from .textual_inversion import BUNDLED, Embedding, bundled_words

PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
FOLDER_FILES = ("pytorch_lora_weights.safetensors", PEFT_FILES[0], "pytorch_lora_weights.bin", PEFT_FILES[1])
"""What an adapter's folder holds, by diffusers and PEFT."""
PEFT_CONFIG = "adapter_config.json"
KNOWN = "a LoRA or one of its relatives (LoHa, LoKr, OFT, IA3, GLoRA, DoRA, AdaLoRA)"
PEFT_FORMS = ("singular", "embedding_up", "embedding_down", "ia3_l")
PEFT_START = "base_model.model."
THIN = ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b")
"""Tensors that have as many rows as the rank."""
NUMBERS = ("alpha", "on_input", "ranknum")
COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Folders of a model whose adapters may lie in folders of the same names."""
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
    """An adapter as its file has it. `unknown` are names that are no part of an adapter known here, `words` the
    embeddings bundled with it, and `family` the models that it is for, where the file shows that for certain."""

    path: Path
    groups: dict[str, Group]
    unknown: tuple[str, ...]
    metadata: Mapping[str, str] = field(repr=False)
    words: tuple[Embedding, ...] = ()
    family: str = ""

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
    """The adapter at `path`: a file, the folder that diffusers or PEFT wrote, or a folder of such folders that are
    called as the parts of a model are ("unet", "text_encoder", "text_encoder_2").

    Raises ModelFileError where there is nothing or the file is damaged, UnknownModel where it is something else.
    """
    place = existing(path)
    if place.is_dir():
        found = next((place / name for name in FOLDER_FILES if (place / name).is_file()), None)
        parts = [] if found is not None else [place / name for name in COMPONENTS if _has_peft(place / name)]
        if parts:
            return _joined(place, [read_adapter(part) for part in parts])
        place = place if found is None else found
    tensors, metadata = read_tensors(place)
    refuse_foreign(tensors)
    grouped = group_names(tensors)
    whole = {stem: names for stem, names in grouped.groups.items() if kind_of(names) is not None}
    words, unread = bundled_words(tensors)
    if any(name.startswith(IP_ADAPTER) for name in tensors) or not (whole or words):
        raise UnknownModel(f"{_what(place, tensors, metadata)}; expected {KNOWN}")
    if len(grouped.adapters) > 1:
        names = ", ".join(brief(name) for name in grouped.adapters)
        raise UnknownModel(f"{place} holds {len(grouped.adapters)} adapters, {names}; a file of one is expected")
    partial = [name for stem, names in grouped.groups.items() if stem not in whole for name in names.values()]
    settings = _read_settings(place, metadata)
    component = f"{place.parent.name}." if place.name in PEFT_FILES and place.parent.name in COMPONENTS else ""
    groups = {_named(stem, component): _group(tensors, stem, names, settings) for stem, names in whole.items()}
    family, guess = adapter_family(tensors, whole, metadata)
    rest = [name for name in grouped.leftovers if not name.startswith(BUNDLED)]
    unknown = (*rest, *partial, *unread)
    return AdapterFile(place, groups, unknown, metadata, words, "" if guess else family)


def _what(place: Path, tensors: TensorFile, metadata: Mapping[str, str]) -> str:
    """What a file is that is no adapter, in words."""
    foreign = foreign_kind(tensors)
    if foreign is not None:
        return f"{place} is {foreign}, which this version does not run"
    kind = identify({name: tensors.info(name).shape for name in tensors}, metadata)
    return f"{place} is {kind}, not an adapter" if kind else f"{place} holds no adapter that is known here"


def _has_peft(folder: Path) -> bool:
    return any((folder / name).is_file() for name in PEFT_FILES)


def _named(stem: str, component: str) -> str:
    """The stem of a tensor in the folder of a component, whose files do not name it themselves."""
    plain = stem.removeprefix(PEFT_START)
    return f"{component}{plain}" if component and stem.startswith(PEFT_START) else stem


def _joined(place: Path, parts: Sequence[AdapterFile]) -> AdapterFile:
    """Adapters of several components as one; its name and hash are those of the first one's file."""
    groups = {stem: group for part in parts for stem, group in part.groups.items()}
    unknown = tuple(name for part in parts for name in part.unknown)
    return replace(parts[0], groups=groups, unknown=unknown, words=tuple(word for part in parts for word in part.words))


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
    found = _in_one_form(found)
    on_input = numbers.get("on_input", 0.0) != 0 or ("ia3_l" in names and settings.on_input(stem, found["ia3"]))
    alpha = numbers.get("alpha")
    thin = next((found[what] for what in THIN if what in found), None)
    if alpha is None and thin is not None and thin.dim():
        alpha = settings.alpha(stem, int(thin.shape[0]), "singular" in names, numbers.get("ranknum"))
    if alpha is None and thin is None and {"lokr_w1", "lokr_w2"} <= set(found):
        found["lokr_w1"] = found["lokr_w1"].float() * settings.whole_scale(stem)
    terms = TERMS
    if "oft_columns" in found:
        terms, alpha = settings.rotation(stem)
    if alpha is not None and abs(alpha) > MAX_ALPHA:
        raise BrokenModel(f"{tensors.path}: the alpha of {stem[:80]!r} is {alpha:g}; at most {MAX_ALPHA} is plausible")
    return Group(found, alpha, on_input, terms)


def _in_one_form(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Forms of PEFT's own as those that the formulas know: the singular values of an AdaLoRA [r,1] go into the factor
    after them, a token embedding [N,D] gets the product of its factors [r,N] and [D,r] the other way round, and the
    factors of an IA3 become their distances from 1."""
    if {"singular", "down"} <= set(found):
        down = found["down"].float()
        found = {**found, "down": down * found["singular"].float().reshape(-1, 1)}
    if {"embedding_up", "embedding_down"} <= set(found):
        found = {**found, "up": found["embedding_down"].T, "down": found["embedding_up"].T}
    if "ia3_l" in found:
        found = {**found, "ia3": found["ia3_l"].float() - 1}
    return {what: tensor for what, tensor in found.items() if what not in PEFT_FORMS}


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

    def on_input(self, stem: str, factors: Tensor) -> bool:
        """Whether an IA3 of PEFT scales columns. Of matrices the shape says it: [1,I] are columns, [O,1] rows."""
        if factors.dim() == 2:
            return factors.shape[0] == 1
        names = [name for settings in self._of(stem) for name in settings.get("feedforward_modules") or ()]
        return any(stem == name or stem.endswith(f".{name}") for name in names if isinstance(name, str))

    def alpha(self, stem: str, rank: int, adaptive: bool = False, start: float | None = None) -> float | None:
        """The alpha of a stem that has none of its own, such that alpha / rank is the scale; None if unknown. An
        AdaLoRA (`adaptive`) is divided by the rank that it began with (`start`, or PEFT's `init_r`)."""
        for settings in self._of(stem):
            found = _pattern(settings.get("alpha_pattern"), stem)
            alpha = _alpha(settings) if found is None else found
            if adaptive and _is_number(alpha):
                first = settings.get("init_r") if start is None else start
                return float(alpha) * rank / (first + 1e-5) if _is_number(first) and first > 0 and alpha > 0 else None
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
