r"""Prompts that change while a picture is painted: A1111's prompt editing and alternation.

    [from:to:when]   `from` until `when`, `to` after it        [to:when]    nothing until `when`
    [from::when]     nothing after `when`                      [a|b|c]      another one at every step, in turn

`when` is a number of steps where it is whole ("10"), and a share of all steps where it has a point ("0.5" or "1.").
They may stand inside one another and around weights. Signs that form none of these stay in the text, where the
weighting syntax may read them; a backslash takes a sign's meaning away.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
_PAIRS = {")": "(", "]": "["}
MAX_DEPTH = 50
"""Brackets deeper than this are plain text."""


@dataclass(frozen=True)
class _Switch:
    """`before` until `when` (a number of steps, or a share of them), `after` from then on."""

    before: _Node
    after: _Node
    when: float
    share: bool

    def last(self, steps: int, before: int, calls: int) -> int:
        """The last step at which `before` counts; of a second pass that follows `before` steps of a first one."""
        second = before > 0
        if self.share:
            value = (self.when - second) * steps
        else:
            value = (self.when if calls == 1 else math.ceil(self.when / calls)) - before
        return int(min(max(value, 0), steps))


@dataclass(frozen=True)
class _Turns:
    options: tuple[_Node, ...]


_Node = tuple["str | _Switch | _Turns", ...]
"""A run of text with what changes in it."""


def prompt_steps(prompt: str, steps: int, before: int = 0, calls: int = 1) -> list[tuple[int, str]]:
    """(last step, text) of each stretch of steps with one text, counted from 1; the last one ends at `steps`.

    before   steps of the first pass, where the prompt is for a second one (hires fix) of `steps` steps: whole numbers
             then count on after it, and shares are those from 1 to 2
    calls    of the network in a step, where whole numbers count those: a change within a step comes with the next
    """
    if steps < 1:
        return [(steps, "".join(_text(_parsed(prompt), 1, 1, before, calls)))]
    tree = _parsed(prompt)
    stretches: list[tuple[int, str]] = []
    for step in range(1, steps + 1):
        text = "".join(_text(tree, step, steps, before, calls))
        if stretches and stretches[-1][1] == text:
            stretches[-1] = (step, text)
        else:
            stretches.append((step, text))
    return stretches


def _text(node: _Node, step: int, steps: int, before: int, calls: int) -> Iterator[str]:
    """The text at `step`."""
    for piece in node:
        if isinstance(piece, str):
            yield piece
        elif isinstance(piece, _Turns):
            yield from _text(piece.options[(step - 1) % len(piece.options)], step, steps, before, calls)
        else:
            chosen = piece.before if step <= piece.last(steps, before, calls) else piece.after
            yield from _text(chosen, step, steps, before, calls)


def _parsed(prompt: str) -> _Node:
    signs = _signs(prompt)
    return _node(prompt, signs, _closed(prompt, signs), 0, len(prompt))


def _signs(prompt: str) -> list[int]:
    """Places of the signs that no backslash stands before."""
    places, skip = [], False
    for place, letter in enumerate(prompt):
        if skip:
            skip = False
        elif letter == "\\":
            skip = True
        elif letter in "()[]:|":
            places.append(place)
    return places


def _closed(prompt: str, signs: list[int]) -> dict[int, int]:
    """Place of each opening bracket -> that of its closing one, for brackets whose inside is balanced too."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for place in signs:
        sign = prompt[place]
        if sign in "([":
            opened.append(place)
        elif sign in _PAIRS:
            if opened and prompt[opened[-1]] == _PAIRS[sign]:
                start = opened.pop()
                if len(opened) < MAX_DEPTH:
                    found[start] = place
            else:
                opened.clear()  # whatever was open would hold a bracket without its partner
    return found


def _node(prompt: str, signs: list[int], closed: dict[int, int], start: int, end: int) -> _Node:
    """What stands in prompt[start:end]."""
    pieces: list[str | _Switch | _Turns] = []
    done = start
    for place in signs[bisect_left(signs, start) : bisect_left(signs, end)]:
        if place < done or prompt[place] != "[" or place not in closed:
            continue
        change = _change(prompt, signs, closed, place + 1, closed[place])
        if change is None:
            continue
        pieces += [prompt[done:place], change]
        done = closed[place] + 1
    return (*pieces, prompt[done:end])


def _change(prompt: str, signs: list[int], closed: dict[int, int], start: int, end: int) -> _Switch | _Turns | None:
    """The inside of a square bracket as what it changes; None where it is none of the forms."""
    bars: list[int] = []
    colons: list[int] = []
    inside = start
    for place in signs[bisect_left(signs, start) : bisect_left(signs, end)]:
        if place < inside:
            continue
        sign = prompt[place]
        if sign in "([":
            if place not in closed:
                return None
            inside = closed[place] + 1
        else:
            (bars if sign == "|" else colons).append(place)

    def parts(places: list[int]) -> list[tuple[int, int]]:
        return list(zip([start, *(place + 1 for place in places)], [*places, end], strict=True))

    if bars and not colons:
        return _Turns(tuple(_node(prompt, signs, closed, *part) for part in parts(bars)))
    if bars or len(colons) not in (1, 2):
        return None
    *texts, last = parts(colons)
    number = _NUMBER.fullmatch(prompt[slice(*last)])
    if number is None:
        return None
    nodes = [_node(prompt, signs, closed, *text) for text in texts]
    return _Switch(nodes[0] if len(nodes) == 2 else (), nodes[-1], float(number[1]), "." in number[1])
