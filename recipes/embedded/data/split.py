"""The held-out combinations: whole (concept, style), (colour, concept) and (relation, a, b), committed in split.json.

A model that has learned to combine draws a held-out pair from its parts; the split lets evaluation see whether it does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPLIT_FILE = Path(__file__).resolve().parent.parent / "split.json"


@dataclass(frozen=True, kw_only=True)
class Split:
    """The three sets of held-out combinations."""

    concept_style: frozenset[tuple[str, str]]
    colour_concept: frozenset[tuple[str, str]]
    relation: frozenset[tuple[str, str, str]]

    def of(self, concept: str, style: str, colour: str | None, triple: tuple[str, str, str] | None = None) -> str:
        """ "heldout" or "train" for one record."""
        held = (
            (concept, style) in self.concept_style
            or (colour is not None and (colour, concept) in self.colour_concept)
            or (triple is not None and triple in self.relation)
        )
        return "heldout" if held else "train"


def read_split(path: Path = SPLIT_FILE) -> Split:
    """The committed split."""
    data = json.loads(path.read_text("utf-8"))
    return Split(**{name: frozenset(tuple(entry) for entry in data[name]) for name in Split.__dataclass_fields__})


def draw(pool: Iterable[tuple[str, ...]], share: float, seed: str) -> list[tuple[str, ...]]:
    """A seeded sample of a pool, sorted."""
    entries = sorted(set(pool))
    return sorted(random.Random(seed).sample(entries, round(share * len(entries))))


def propose(
    concept_style: Iterable[tuple[str, ...]],
    colour_concept: Iterable[tuple[str, ...]],
    relation: Iterable[tuple[str, ...]],
    share: float = 0.04,
    seed: str = "split 1",
) -> dict[str, Any]:
    """A new split from pools of combinations. Run once; the result is committed and then only read."""
    return {
        "concept_style": draw(concept_style, share, seed + "a"),
        "colour_concept": draw(colour_concept, share, seed + "b"),
        "relation": draw(relation, share, seed + "c"),
    }


def extend(data: dict[str, Any], name: str, pool: Iterable[tuple[str, ...]], share: float, seed: str) -> dict[str, Any]:
    """A committed split with a share of a new pool appended to one of its lists; what was there stays as it was."""
    there = {tuple(entry) for entry in data[name]}
    return {**data, name: [*data[name], *draw(set(pool) - there, share, seed)]}


def dump(data: dict[str, Any]) -> str:
    """split.json with one combination per line, so that changes to it read well."""
    parts = []
    for name, entries in data.items():
        lines = ",\n  ".join(json.dumps(list(entry), ensure_ascii=False) for entry in entries)
        parts.append(f' "{name}": [\n  {lines}\n ]')
    return "{\n" + ",\n".join(parts) + "\n}\n"
