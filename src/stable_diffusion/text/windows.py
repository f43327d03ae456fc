"""How the tokens of a prompt fall into context windows, as A1111 cuts them.

A window that is full breaks after its last comma where one is near, and a word of several learned vectors (an
embedding) is never cut in two: its vectors mean nothing apart.

A few windows run through a text encoder one by one, as a prompt of one does. More run `BATCH` at a time, the last batch
filled up with rows that nobody reads: every call has the same shape, so that what a window becomes does not depend on
how many others the prompt has. Against a call of its own it may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import InvalidRequest
from ..stop import stop_if_asked

BACKTRACK = 20
"""A full window breaks after a comma that lies at most this many tokens back (A1111's setting and default)."""
ALONE = 8
"""Up to so many distinct windows run one by one."""
BATCH = 16
MAX_WINDOWS = 2000
"""Of one prompt: beyond it the steps themselves would hardly move."""
Key = TypeVar("Key")


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


def run_windows(
    windows: Sequence[Key], row: Callable[[Key], Tensor], network: Callable[[Tensor], tuple[Tensor, ...]]
) -> list[tuple[Tensor, ...]]:
    """What `network` makes of each window: ids [B,T] -> tensors [B,...], cut into rows [1,...].

    `row` makes ids [1,T] of a window. InvalidRequest where there are more than `MAX_WINDOWS`; Stopped, before a batch
    at the latest, where the work was asked to end (`stop.stopping`).
    """
    if len(windows) > MAX_WINDOWS:
        raise InvalidRequest(
            f"the prompt falls into {len(windows)} windows; expected at most {MAX_WINDOWS}, so leave out some text or "
            "some BREAKs"
        )
    stop_if_asked()
    distinct = list(dict.fromkeys(windows))
    if len(distinct) <= ALONE:
        made = {window: network(row(window)) for window in distinct}
        return [made[window] for window in windows]
    rows = [row(window) for window in distinct]
    rows += [rows[0]] * (-len(rows) % BATCH)
    outputs: list[tuple[Tensor, ...]] = []
    for first in range(0, len(rows), BATCH):
        stop_if_asked()
        found = network(torch.cat(rows[first : first + BATCH]))
        outputs += [tuple(part[k : k + 1] for part in found) for k in range(BATCH)]
    made = dict(zip(distinct, outputs, strict=False))
    return [made[window] for window in windows]
