"""How the tokens of a prompt fall into context windows, as A1111 cuts them.

A window that is full breaks after its last comma where one is near, and a word of several learned vectors (an
embedding) is never cut in two: its vectors mean nothing apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

BACKTRACK = 20
"""A full window breaks after a comma that lies at most this many tokens back (A1111's setting and default)."""


@dataclass(frozen=True)
class Window:
    """One context window: at most `capacity` ids of text and the weight of each; marks and padding are added later."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


def split_windows(
    weighted: Sequence[tuple[int, float]],
    capacity: int,
    comma: int | None,
    goes_on: Callable[[int], bool] | None = None,
) -> list[Window]:
    """Tokens with weights into windows of at most `capacity`, breaking after a comma near the end if any.

    `goes_on` tells the tokens that belong to the word of the one before. A word that does not fit with all of its
    tokens begins the next window; only one that is longer than a window is cut.
    """
    windows: list[Window] = []
    current: list[tuple[int, float]] = []
    last_comma = -1

    def close(upto: int) -> None:
        nonlocal current, last_comma
        head, current, last_comma = current[:upto], current[upto:], -1
        windows.append(Window(tuple(i for i, _ in head), tuple(weight for _, weight in head)))

    for (token, weight), length in zip(weighted, _lengths(weighted, goes_on), strict=True):
        if token == comma:
            last_comma = len(current)
        elif len(current) == capacity and last_comma >= 0 and capacity - last_comma <= BACKTRACK:
            close(last_comma + 1)
        if len(current) == capacity or (current and length <= capacity < len(current) + length):
            close(len(current))
        current.append((token, weight))
    close(len(current))
    return windows


def _lengths(weighted: Sequence[tuple[int, float]], goes_on: Callable[[int], bool] | None) -> list[int]:
    """For each token that begins a word the number of its tokens, and 1 for those that go on."""
    lengths = [1] * len(weighted)
    if goes_on is None:
        return lengths
    first = 0
    for place, (token, _) in enumerate(weighted):
        if goes_on(token) and place:
            lengths[first] += 1
        else:
            first = place
    return lengths
