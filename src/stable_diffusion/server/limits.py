"""What a request may cost, checked before it waits: a library may be asked for anything, a server may not."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..errors import InvalidRequest
from ..request.request import Request
from ..text.prompt import parse_prompt, split_and
from ..text.prompt_editing import prompt_steps
from ..text.tokenizer import Tokenizer
from .settings import Limits

TAG = re.compile(r"<[^<>\n]{1,200}>")
TEXTS = 4
"""Times the windows of one text that all texts of a prompt with changes in it may have."""
CAPACITY = 75
"""Tokens of text in a window of CLIP."""


def check_limits(request: Request, limits: Limits, size: tuple[int, int], steps: int) -> None:
    """InvalidRequest where a request is beyond a limit of this server.

    size, steps  of the model, for what the request leaves out
    """
    _check_prompt("prompt", request.prompt, limits, request.steps or steps)
    _check_prompt("negative_prompt", request.negative_prompt, limits, request.steps or steps)
    _most("loras", len(request.loras) + len(TAG.findall(request.prompt)), limits.loras)
    _most("controls", len(request.controls), limits.controls)
    _most("count", request.count, limits.count)
    _most("steps", request.steps or steps, limits.steps)
    for width, height, _ in _passes(request, size, steps):
        _most("width", width, limits.side)
        _most("height", height, limits.side)
        if width * height > limits.pixels:
            raise InvalidRequest(
                f"the picture has {width}x{height} pixels; this server makes at most {limits.pixels} "
                f"({limits.pixels / 1e6:.1f} megapixels)"
            )
    cost = cost_of(request, size, steps)
    if cost > limits.cost:
        raise InvalidRequest(
            f"the request would take {cost:.0f} megapixel steps; this server takes at most {limits.cost}: "
            "ask for a smaller size, fewer steps or fewer pictures"
        )


def cost_of(request: Request, size: tuple[int, int], steps: int) -> float:
    """Megapixels times calls of the network, of all its pictures; size and steps as in `check_limits`."""
    parts = max(1, len(split_and(request.prompt)))
    guided = 1 if request.guidance == 1 else 2
    work = sum(width * height * run * (parts + guided - 1) for width, height, run in _passes(request, size, steps))
    return work * (1 + len(request.controls)) * request.count / 1e6


def _most(name: str, value: int, most: int) -> None:
    if value > most:
        raise InvalidRequest(f"{name} is {value}; this server takes at most {most}")


def _passes(request: Request, size: tuple[int, int], steps: int) -> Iterator[tuple[int, int, int]]:
    """(width, height, steps) of each pass."""
    width, height = _first_size(request, size)
    first = request.steps or steps
    yield width, height, first
    if request.hires is not None:
        scale, again = request.hires.scale, request.hires.steps or first
        yield round(width * scale), round(height * scale), again


def _first_size(request: Request, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height as far as they are known without the model; a given picture's own where none is asked for."""
    given = request.image.size if request.image is not None else None
    width = request.width or (given[0] if given and request.height is None else size[0])
    height = request.height or (given[1] if given and request.width is None else size[1])
    if request.canvas.panorama and request.width is None and request.height is None:
        width = 2 * height
    if request.canvas.outpaint is not None:
        left, top, right, bottom = request.canvas.outpaint
        width, height = width + left + right, height + top + bottom
    return width, height


def _check_prompt(name: str, text: str, limits: Limits, steps: int) -> None:
    if len(text) > limits.prompt:
        raise InvalidRequest(f"{name} has {len(text)} characters; this server takes at most {limits.prompt}")
    parts = len(split_and(text))
    if parts > limits.parts:
        raise InvalidRequest(f"{name} joins {parts} parts by AND; this server takes at most {limits.parts}")
    found = windows(text)
    texts = {each for part, _ in split_and(text) for _, each in prompt_steps(part, max(steps, 1))}
    if len(texts) > 1 and sum(map(windows, texts)) > TEXTS * limits.windows:
        raise InvalidRequest(
            f"{name} changes {len(texts)} times while a picture forms; this server takes at most "
            f"{TEXTS * limits.windows} windows of text in all"
        )
    if found > limits.windows:
        raise InvalidRequest(
            f"{name} is read in {found} windows of {CAPACITY} tokens; this server takes at most {limits.windows}: "
            "shorten it, or leave out some BREAKs"
        )


def windows(text: str) -> int:
    """How many windows of CLIP a prompt fills, about: that of a model may differ by its own words."""
    tokenizer, counts = _tokenizer(), []
    for section in parse_prompt(TAG.sub("", text)):
        counts.append(sum(len(tokenizer.encode(span.text)) for span in section))
    while len(counts) > 1 and not counts[-1]:  # as the encoder leaves them out
        counts.pop()
    return sum(max(1, -(-count // CAPACITY)) for count in counts)


def tokens(text: str) -> int:
    """Tokens of CLIP in a prompt, without its signs."""
    return sum(len(_tokenizer().encode(span.text)) for part in parse_prompt(TAG.sub("", text)) for span in part)


def cut_at(text: str, limits: Limits) -> int | None:
    """Where a prompt becomes too long for this server; None where it is not."""
    if len(text) <= limits.prompt and windows(text) <= limits.windows:
        return None
    low, high = 0, min(len(text), limits.prompt)
    while low < high:
        middle = (low + high + 1) // 2
        if windows(text[:middle]) <= limits.windows:
            low = middle
        else:
            high = middle - 1
    return low


_KEPT: list[Tokenizer] = []


def _tokenizer() -> Tokenizer:
    if not _KEPT:
        _KEPT.append(Tokenizer.clip())
    return _KEPT[0]
