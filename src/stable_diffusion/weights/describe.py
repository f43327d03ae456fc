"""What a model file is, without loading it: for `info`, and for error messages that say why a file is not a model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..diffusion.prediction import resolve_prediction
from .checkpoints.canonical import canonical
from .checkpoints.folder import INDEX
from .checkpoints.folder_load import understand
from .checkpoints.native import PREFIXES, is_native, read_config, record
from .checkpoints.single import EMA, UNET, Overrides, recognise
from .containers.hashes import SHORT, legacy_hash, sha256
from .containers.limits import using_config
from .containers.open import existing, read_tensors
from .containers.packing import SCALE
from .containers.tensors import TensorFile
from .load import parse_overrides, refuse_overrides, single_defaults
from .networks.mmdit import SECOND_EMBEDDING
from .parts import Card, Defaults


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What a model is, and what it is run with by default (width, height, steps, guidance, sampler).

    `zero_terminal_snr` says that its noise schedule ends with noise alone.

    `layout` is "ldm", "diffusers" or "native"; `container` how the file holds its tensors.

    `parameters` counts weights by part, `averaged` those of a second, averaged copy (EMA) that is not used. `dtype` is
    the dtype of most weights. `guesses` says in sentences what the file does not tell. Hashes are None for folders, and
    where they were not asked for.
    """

    path: Path
    layout: str
    container: str
    family: str
    label: str
    prediction: str
    width: int
    height: int
    steps: int
    guidance: float
    sampler: str
    dtype: str
    parameters: dict[str, int]
    zero_terminal_snr: bool = False
    averaged: int = 0
    name: str = ""
    licence: str = ""
    guesses: tuple[str, ...] = ()
    sha256: str | None = None
    short_hash: str | None = None
    legacy_hash: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "path": str(self.path), "guesses": list(self.guesses)}


def inspect(path: str | os.PathLike[str], *, hashes: bool = True, **overrides: Any) -> Detection:
    """What the model at `path` is, from names and shapes alone; only hashing reads the whole file.

    `overrides` are those of `load_parts`. Raises what `load_parts` raises for a file that is not a model: UnknownModel
    carries the reason for each family, and says so where the file is a LoRA, an embedding or another known kind.
    """
    place = existing(path)
    if place.name == INDEX:
        place = place.parent
    given = parse_overrides(overrides)
    if place.is_dir():
        refuse_overrides(given, "diffusers")
        return _inspect_folder(place, given)
    tensors, metadata = read_tensors(place)
    refuse_overrides(given, "native" if is_native(metadata) else "ldm")
    found = _inspect_native(tensors, metadata) if is_native(metadata) else _inspect_single(tensors, metadata, given)
    if given.prediction is not None:
        found["prediction"] = resolve_prediction(given.prediction)
    if given.zero_terminal_snr is not None:
        found["zero_terminal_snr"] = given.zero_terminal_snr
    if hashes:
        full = sha256(place)
        found.update(sha256=full, short_hash=full[:SHORT], legacy_hash=legacy_hash(place))
    shown = {key: value for key, value in metadata.items() if len(value) <= 500 and key not in ("config", "tokenizer")}
    return Detection(path=place, container=tensors.kind, metadata=shown, **found)


def _inspect_single(tensors: TensorFile, metadata: Mapping[str, str], given: Overrides) -> dict[str, Any]:
    tensors = canonical(tensors)
    found = recognise(tensors, metadata, given)
    defaults, hurry = single_defaults(found.family, found.unet, metadata, tensors.path)
    return {
        "layout": "ldm",
        "family": found.family.name,
        "label": found.family.label,
        "prediction": found.prediction,
        **_run(defaults),
        "dtype": main_dtype(tensors, UNET),
        "parameters": {part: count_under(found.tensors, prefix) for part, prefix in found.parts.items()},
        "zero_terminal_snr": found.zero_terminal_snr,
        "averaged": count_under(tensors, EMA),
        "name": metadata.get("modelspec.title", ""),
        "licence": metadata.get("modelspec.license", ""),
        "guesses": found.guesses + hurry,
    }


def _inspect_native(tensors: TensorFile, metadata: Mapping[str, str]) -> dict[str, Any]:
    config = read_config(tensors.path, metadata)
    with using_config(tensors.path):
        defaults, card = record(Defaults, config.get("defaults", {})), record(Card, config.get("card", {}))
    return {
        "layout": "native",
        "family": str(config["family"]),
        "label": f"{card.name} {card.version}".strip() or "a model in this package's own format",
        "prediction": str(config["prediction"]),
        **_run(defaults),
        "dtype": metadata.get("packing", main_dtype(tensors, "")),
        "parameters": {part: count_under(tensors, prefix) for part, prefix in PREFIXES.items()},
        "name": card.name,
        "licence": card.licence,
    }


def _inspect_folder(folder: Path, given: Overrides) -> Detection:
    found = understand(folder, given.variant, t5=given.t5 is not False)
    zero_snr = bool(found.schedule.to_config().get("zero_terminal_snr"))
    return Detection(
        path=folder,
        layout="diffusers",
        container=found.files[found.network].kind,
        family=found.family.name,
        label=found.family.label,
        prediction=found.prediction if given.prediction is None else resolve_prediction(given.prediction),
        dtype=main_dtype(found.files[found.network], ""),
        parameters={found.parts[part]: count_under(file, "") for part, file in found.files.items()},
        zero_terminal_snr=zero_snr if given.zero_terminal_snr is None else given.zero_terminal_snr,
        guesses=found.guesses,
        **_run(found.defaults),
    )


def _run(defaults: Defaults) -> dict[str, Any]:
    """The fields of a detection that say how the model is run."""
    return {name: getattr(defaults, name) for name in ("width", "height", "steps", "guidance", "sampler")}


def count_under(tensors: TensorFile, prefix: str) -> int:
    """Weights under a prefix: floating or packed tensors, without position numbers, the scales of packed ones, and
    the second name of T5's embedding."""
    total = 0
    for name in tensors:
        if not name.startswith(prefix) or name.endswith("position_ids"):
            continue
        if name.endswith(SECOND_EMBEDDING) and name.removesuffix(SECOND_EMBEDDING) + "shared.weight" in tensors:
            continue
        if not (name.endswith(SCALE) and name.removesuffix(SCALE) in tensors):
            total += tensors.info(name).count
    return total


def main_dtype(tensors: TensorFile, prefix: str) -> str:
    """How most weights under a prefix are stored: a dtype as torch names it, or a kind of quantisation."""
    counts: Counter[str] = Counter()
    for name in tensors:
        if name.startswith(prefix):
            counts[tensors.stored(name)] += tensors.info(name).count
    return counts.most_common(1)[0][0] if counts else "none"
