"""What a ground's painter needs to know of the scene around it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class View:
    """`horizon`: y of the horizon; `lamp`: centre of sun or moon or None; `decorated`: whether the ground may add its
    own trees and such (not when things are placed on it)."""

    time: str
    weather: str
    horizon: float
    lamp: tuple[float, float] | None
    decorated: bool
