"""Which tensors of a file hold NaN or infinite numbers: for `info --check`, which reads all that loading would use."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UnknownModel
from .build import Prefixed
from .checkpoints.blueprint import Overrides
from .checkpoints.folder import INDEX, component, read_folder
from .containers.finite import check_while_reading, not_finite_in
from .containers.open import existing, read_tensors
from .load import build_parts, read_file


def damaged(path: str | os.PathLike[str], **overrides: Any) -> list[str]:
    """Names of the tensors at `path` that are used and hold numbers that are not finite, in the order of reading.

    Of a model those count that loading uses (not its averaged weights), of other files (adapters, ControlNets, parts of
    a model) all. One tensor at a time is in memory. `overrides` are those of `load_parts`, whose errors it raises for a
    model that is damaged in other ways.
    """
    place, given = existing(path), Overrides.parse(overrides)
    place = place.parent if place.name == INDEX else place
    try:
        return _in_folder(place, given) if place.is_dir() else _in_file(place, given)
    except UnknownModel:
        return not_finite_in(component(place) if place.is_dir() else read_tensors(place)[0])


def _in_folder(place: Path, given: Overrides) -> list[str]:
    found = read_folder(place, given.variant, t5=given.t5 is not False)
    bad: dict[str, list[str]] = {}
    for name, plan in found.shown():
        file, drop = plan.tensors.file, plan.tensors.drop
        seen = bad.setdefault(file.path.parent.name, [])
        watching = replace(plan, tensors=Prefixed(check_while_reading(file, seen), "", drop))
        found = found.with_network(name, watching)
    build_parts(found, dtype=None, device="meta")
    return [f"{part}/{name}" for part, names in bad.items() for name in names]


def _in_file(place: Path, given: Overrides) -> list[str]:
    tensors, metadata = read_tensors(place)
    bad: list[str] = []
    # with a prediction given, nothing is asked of a network that has no numbers
    given = replace(given, prediction=given.prediction or "eps")
    build_parts(read_file(check_while_reading(tensors, bad), metadata, given), dtype=None, device="meta")
    return bad
