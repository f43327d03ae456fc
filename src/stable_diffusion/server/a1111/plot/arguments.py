"""`script_args` of A1111's X/Y/Z plot as a plot, and the body of each of its cells."""

from __future__ import annotations

import csv
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ....errors import InvalidRequest, brief
from ....request.axes import MAX_CELLS, MAX_VALUES, values_of
from ..bodies import Generation, Img2Img
from .axes import NOTHING, ORDER, SEEDS, PlotAxis, axis_named, permutations

TITLE = "X/Y/Z plot"
MOST_ARGS = 19
MOST_SEED = 2**32 - 1
MOST_MARGIN = 500
B = TypeVar("B", bound=Generation)


@dataclass(frozen=True)
class Side:
    """An axis of a plot with its values; `given` is what the client wrote."""

    axis: PlotAxis
    values: tuple[Any, ...]
    given: str = ""

    @property
    def labels(self) -> list[str]:
        return [self.axis.text(value) for value in self.values]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What the script was asked for.

    lone, sheets  whether the answer holds the single pictures, and the sheets of each value of Z
    fixed         whether all cells share one seed where none was asked for
    vary          whether the seed counts up along x, y, z
    margin        pixels between the cells
    """

    x: Side
    y: Side
    z: Side
    legend: bool = True
    lone: bool = False
    sheets: bool = False
    fixed: bool = True
    vary: tuple[bool, bool, bool] = (False, False, False)
    margin: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and blocks."""
        return len(self.x.values), len(self.y.values), len(self.z.values)


def is_plot(name: str | None) -> bool:
    """Whether `script_name` means this script."""
    return name is not None and name.strip().casefold() in (TITLE.casefold(), "xyz plot", "x/y plot")


def plot_of(body: Generation) -> Plot:
    """The plot of a body's `script_args`; InvalidRequest where they cannot be used.

    Arguments may be missing at the end. Between "keep -1 for seeds" and the margin, A1111 1.10 has three more than
    older versions, and clients of both are understood: there the margin is no number but "vary seeds for X".
    """
    args = list(body.script_args)
    if len(args) > MOST_ARGS:
        raise InvalidRequest(f"script_args has {len(args)} values; {TITLE} takes at most {MOST_ARGS}")
    has_image = isinstance(body, Img2Img)
    sides = [_side(name, args[3 * at : 3 * at + 3], has_image=has_image) for at, name in enumerate("xyz")]
    legend, lone, sheets, free = (_flag(args, 9 + at, usual=at == 0) for at in range(4))
    vary, at = (False, False, False), 13
    if len(args) > 13 and _is_flag(args[13]):
        vary, at = (_flag(args, 13), _flag(args, 14), _flag(args, 15)), 16
    margin = _margin(args[at] if len(args) > at else 0)
    if not free:
        sides = [replace(side, values=tuple(map(_fixed, side.values))) if _is_seed(side) else side for side in sides]
    x, y, z = sides
    plot = Plot(x=x, y=y, z=z, legend=legend, lone=lone, sheets=sheets, fixed=not free, vary=vary, margin=margin)
    columns, rows, blocks = plot.shape
    if columns * rows * blocks > MAX_CELLS:
        raise InvalidRequest(f"the plot has {columns * rows * blocks} pictures; expected at most {MAX_CELLS}")
    return plot


def cells(plot: Plot, body: B) -> Iterator[B]:
    """The bodies of the cells in reading order, block by block; each makes one picture."""
    base = body.model_copy(update={"script_name": None, "script_args": [], "batch_size": 1, "n_iter": 1})
    if plot.fixed:
        base = base.model_copy(update={name: _fixed(getattr(base, name)) for name in ("seed", "subseed")})
    columns, rows, blocks = map(range, plot.shape)
    for iz, iy, ix in itertools.product(blocks, rows, columns):
        cell = base
        for side, at in ((plot.x, ix), (plot.y, iy), (plot.z, iz)):
            assert side.axis.put is not None
            cell = cell.model_copy(update=dict(side.axis.put(cell, side.values[at], side.values)))
        yield cell.model_copy(update={"seed": cell.seed + _offset(plot, (ix, iy, iz))}) if cell.seed >= 0 else cell


def _offset(plot: Plot, place: tuple[int, int, int]) -> int:
    found, stride = 0, 1
    for is_varied, at, count in zip(plot.vary, place, plot.shape, strict=True):
        if is_varied:
            found, stride = found + at * stride, stride * count
    return found


def _side(name: str, args: Sequence[Any], *, has_image: bool) -> Side:
    """The axis of (type, values as text, values of the menu): the menu's count where there are any."""
    kind, text, chosen = [*args, None, None, None][:3]
    axis = axis_named(kind, f"{name}_type", has_image=has_image)
    if axis.label == NOTHING:
        return Side(axis, (0,))
    given = chosen if isinstance(chosen, list) and chosen else text
    words = _words(name, given if given not in (None, []) else chosen)
    values = permutations(words) if axis.label == ORDER and words else _values(axis, words)
    if not 1 <= len(values) <= MAX_VALUES:
        raise InvalidRequest(f"{name}_values of {axis.label!r} has {len(values)} values; expected 1 to {MAX_VALUES}")
    return Side(axis, tuple(values), ", ".join(words))


def _words(name: str, given: Any) -> list[str]:
    """Values as a list, or as text with commas, quotes around those that have one."""
    if given is None:
        return []
    if isinstance(given, list) and all(isinstance(each, (str, int, float)) for each in given):
        return [str(each).strip() for each in given][: MAX_VALUES + 1]
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return [str(given)]
    if not isinstance(given, str):
        raise InvalidRequest(f"{name}_values is {brief(given, 60)!r}; expected text with commas between the values")
    try:
        lines = list(csv.reader(given.splitlines(), skipinitialspace=True))
    except csv.Error:
        raise InvalidRequest(f"{name}_values cannot be read as text with commas between the values") from None
    return [word.strip() for line in lines for word in line][: MAX_VALUES + 1]


def _values(axis: PlotAxis, words: Sequence[str]) -> list[Any]:
    found: list[Any] = []
    for word in words:
        empty = axis.label in SEEDS and word == ""  # a random one, as the field of the seed has it
        found += [-1] if empty else values_of(axis.label, word, axis.kind)
    return found


def _is_seed(side: Side) -> bool:
    return side.axis.label in SEEDS


def _fixed(seed: int) -> int:
    return random.randint(0, MOST_SEED) if seed == -1 else seed


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().casefold() in ("true", "false"))


def _flag(args: Sequence[Any], at: int, *, usual: bool = False) -> bool:
    """A switch: true or false, which some clients write as text."""
    value = args[at] if len(args) > at else usual
    if value in (None, ""):
        return usual
    if _is_flag(value) or value in (0, 1):
        return str(value).strip().casefold() in ("true", "1")
    raise InvalidRequest(f"script_args has {brief(value, 60)!r} as value {at + 1}; expected true or false")


def _margin(value: Any) -> int:
    if value in (None, ""):
        return 0
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= MOST_MARGIN:
        raise InvalidRequest(f"margin_size is {brief(value, 60)}; expected 0 to {MOST_MARGIN}")
    return round(number)
