"""A picture of any size through a network in bounded memory: overlapping tiles, mixed where they meet.

Each tile sees `OVERLAP` pixels of its neighbours on every inner side. The outer half of them is thrown away, since
there the network misses what lies beyond; over the inner half the two tiles are mixed from one to the other, with
weights that add up to one. Where a network sees less far than half the overlap, the result is that of the whole
picture but for rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator

import torch
from torch import Tensor

from ..errors import InvalidRequest

TILE, OVERLAP = 192, 16
"""Pixels of a side of a tile, and what it sees of its neighbours: at 4x an RRDBNet then works in about 0.8 GB."""

Done = tuple[int, int]
"""Tiles that are done, of how many."""


def tiled(
    network: Callable[[Tensor], Tensor], picture: Tensor, scale: int, *, tile: int = TILE, overlap: int = OVERLAP
) -> Generator[Done, None, Tensor]:
    """[1,C,H,W] through `network`, which multiplies both sides by `scale`: yields (done, of how many) and returns
    [1,C,H*scale,W*scale]. InvalidRequest where `tile` is below twice the overlap, or 0 above it."""
    if tile < max(2 * overlap, 1) or overlap < 0:
        raise InvalidRequest(f"tile is {tile}; expected at least {max(2 * overlap, 1)}, twice the overlap")
    height, width = picture.shape[-2:]
    rows, columns = _cuts(height, tile), _cuts(width, tile)
    made: Tensor | None = None
    total, mixed = len(rows) * len(columns), overlap // 2
    for number, (top, bottom, left, right) in enumerate((*row, *column) for row in rows for column in columns):
        yield number, total
        seen = (
            max(top - overlap, 0),
            min(bottom + overlap, height),
            max(left - overlap, 0),
            min(right + overlap, width),
        )
        piece = network(picture[..., seen[0] : seen[1], seen[2] : seen[3]])
        if made is None:
            made = piece.new_zeros(*piece.shape[:-2], height * scale, width * scale)
        kept_rows = _kept(top, bottom, height, mixed)
        kept_columns = _kept(left, right, width, mixed)
        part = piece[
            ...,
            (kept_rows[0] - seen[0]) * scale : (kept_rows[1] - seen[0]) * scale,
            (kept_columns[0] - seen[2]) * scale : (kept_columns[1] - seen[2]) * scale,
        ]
        weight = _ramp(top, bottom, height, mixed, scale)[:, None] * _ramp(left, right, width, mixed, scale)
        place = made[
            ..., kept_rows[0] * scale : kept_rows[1] * scale, kept_columns[0] * scale : kept_columns[1] * scale
        ]
        place += part if total == 1 else part * weight.to(part)
    yield total, total
    assert made is not None  # a picture has a pixel
    return made


def tile_count(size: tuple[int, int], tile: int = TILE) -> int:
    """Tiles of a picture of this width and height."""
    return len(_cuts(size[0], tile)) * len(_cuts(size[1], tile))


def _cuts(length: int, tile: int) -> list[tuple[int, int]]:
    """A side in parts of about equal length, none longer than `tile`."""
    count = -(-length // tile)
    edges = [length * n // count for n in range(count + 1)]
    return list(itertools.pairwise(edges))


def _kept(start: int, end: int, length: int, mixed: int) -> tuple[int, int]:
    """A tile with what is mixed with its neighbours."""
    return (start - mixed if start else 0), (end + mixed if end < length else length)


def _ramp(start: int, end: int, length: int, mixed: int, scale: int) -> Tensor:
    """Weights along one side of what is kept of a tile: rising and falling over what is mixed, else one."""
    first, last = _kept(start, end, length, mixed)
    weights = torch.ones((last - first) * scale)
    steps = 2 * mixed * scale
    rise = (torch.arange(steps) + 0.5) / max(steps, 1)
    if start and steps:
        weights[:steps] = rise
    if end < length and steps:
        weights[-steps:] = 1 - rise
    return weights
