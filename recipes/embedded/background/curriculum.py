"""The curriculum: which pictures, how often, with which settings, in which order.

A table in TOML. `config` names the training config that every piece starts from, beside the recipe's other configs;
`first` the piece to begin with on a bare machine, because the shipped model has seen those before it. Each [[piece]]:

    name       of its run folder
    concepts   text files of concepts beside the table (none: all); a piece sees those of all of them
    views      how often each picture is seen, times its weight
    steps      instead of views, the number of steps
    settings   training settings, in tables as in a training config
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stable_diffusion.errors import InvalidRequest, unknown_choice
from stable_diffusion.training.config import StageConfig, load_config
from stable_diffusion.training.data import Order, TrainingPack

from ..judge import read_concepts

HERE = Path(__file__).resolve().parent
CURRICULUM = HERE / "curriculum.toml"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One stretch of training with a learning-rate plan of its own. settings: overrides by dotted key."""

    name: str
    config: Path
    views: float = 0.0
    steps: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def stage(self, more: Mapping[str, Any] | None = None) -> StageConfig:
        """The training settings, those of `more` last."""
        return load_config("denoiser", self.config, {**self.settings, **(more or {})})

    def planned(self, pack: TrainingPack) -> int:
        """The number of steps."""
        if self.steps:
            return self.steps
        config = self.stage()
        length = Order(pack.weights(pack.select(config.data), config.data), config.seed).length
        return math.ceil(self.views * length / config.batch_size)


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """The pieces in order, and the name of the one to begin with on a bare machine."""

    pieces: tuple[Piece, ...]
    first: str

    def before(self, piece: Piece) -> list[Piece]:
        """The pieces before this one, rounds of the last one included."""
        return list(itertools.takewhile(lambda each: each.name != piece.name, self.rounds()))

    def rounds(self) -> Iterator[Piece]:
        """The pieces in order, then the last one again and again as NAME-2, NAME-3, ..., each with its own seed."""
        yield from self.pieces
        last, number = self.pieces[-1], 2
        while True:
            yield replace(last, name=f"{last.name}-{number}", settings={**last.settings, "seed": number})
            number += 1


def read_curriculum(path: Path = CURRICULUM) -> Curriculum:
    """The table at `path`. InvalidRequest for a wrong key, a piece without an end, and a name that comes twice."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    config = path.parent / table.get("config", "")
    pieces = tuple(_piece(fields, config, path.parent) for fields in table.get("piece", ()))
    if not pieces:
        raise InvalidRequest(f"{path} has no [[piece]]")
    names = [piece.name for piece in pieces]
    if len(set(names)) < len(names):
        raise InvalidRequest(f"{path}: a piece's name comes twice among {', '.join(names)}")
    first = str(table.get("first", names[0]))
    if first not in names:
        raise unknown_choice("piece of the curriculum", first, names)
    return Curriculum(pieces=pieces, first=first)


KEYS = ("name", "concepts", "views", "steps", "settings")


def _piece(fields: Mapping[str, Any], config: Path, folder: Path) -> Piece:
    for key in fields:
        if key not in KEYS:
            raise unknown_choice("key of a piece", key, KEYS)
    name, views, steps = str(fields.get("name", "")), float(fields.get("views", 0)), int(fields.get("steps", 0))
    if not name or (views > 0) == (steps > 0):
        raise InvalidRequest(
            f"piece {name!r} has views = {views:g} and steps = {steps}: expected a name and one of both"
        )
    settings = dict(flat(fields.get("settings", {})))
    if concepts := fields.get("concepts"):
        listed = [concept for file in concepts for concept in read_concepts(folder / f"{file}.txt")]
        settings["data.concepts"] = list(dict.fromkeys(listed))
    return Piece(name=name, config=config, views=views, steps=steps, settings=settings)


def flat(table: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """A table of tables as (dotted key, value)."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{start}{key}.")
        else:
            yield f"{start}{key}", value
