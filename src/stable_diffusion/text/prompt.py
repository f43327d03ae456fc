r"""The prompt weighting syntax that users of Stable Diffusion tools type, read into spans of text with a weight each.

    (word)        attention times 1.1                 ((word))  times 1.21
    (word:1.3)    times 1.3, any number               [word]    divided by 1.1
    \( \) \[ \]   the sign itself, without meaning    \\        one backslash (and so for \: \| \{ \})
    BREAK         as a word of its own: the rest of the prompt starts a new context window
    a AND b       as a word of its own: two prompts, whose guidance adds up; `a :0.5 AND b :1.5` weighs them

An opening bracket that is never closed holds to the end of the prompt, and a closing one that was never opened is plain
text, as is a number that is not one, so every string has a reading. Prompt editing (`[from:to:when]`) and alternation
(`[a|b]`) are read before (prompt_steps.py): what is left of their signs here are the brackets above and plain text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

STRONGER = 1.1
_SIGNS = re.compile(
    r"\\(?P<escaped>[()\[\]\\:|{}])"
    r"|(?P<open>[(\[])"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    r"|(?P<close>[)\]])"
    r"|(?P<text>[^\\()\[\]:]+|[\\:])"
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_AND = re.compile(r"\bAND\b")
_SHARE = re.compile(r"(.*?)\s*(?<!\\):\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*", re.DOTALL)


@dataclass(frozen=True)
class Span:
    """A run of prompt text with the attention it gets; 1 is neutral."""

    text: str
    weight: float = 1.0


def parse_prompt(prompt: str) -> list[list[Span]]:
    """Sections of the prompt (parted by `BREAK`), each a list of spans; neighbours of equal weight are joined.

    Always at least one section; a section without text is an empty list.
    """
    sections: list[list[Span]] = [[]]
    for span in _weighted(prompt):
        for index, text in enumerate(_BREAK.split(span.text)):
            if index:
                sections.append([])
            if text:
                sections[-1].append(replace(span, text=text))
    return [_joined(section) for section in sections]


def split_and(prompt: str) -> list[tuple[str, float]]:
    """(prompt, weight) of each part between `AND`s; one part of weight 1 where there is none.

    x0 = uncond + guidance * sum of weight * (cond - uncond) over the parts (Liu et al. 2022, "Compositional visual
    generation with composable diffusion models", equation 11). Only beside an `AND` is a number at the end a weight:
    the 9 of "16:9" is text. (A1111 reads it as a weight there too.)
    """
    parts = _AND.split(prompt)
    if len(parts) == 1:
        return [(prompt, 1.0)]
    found = [(part, _SHARE.fullmatch(part)) for part in parts]
    return [(part.strip(), 1.0) if match is None else (match[1].strip(), float(match[2])) for part, match in found]


def plain_prompt(prompt: str) -> list[list[Span]]:
    """The prompt as one span of neutral weight, its signs read as text: weighting switched off."""
    return [[Span(prompt)] if prompt else []]


def _weighted(prompt: str) -> list[Span]:
    """Spans with their weights, before BREAK is looked at and neighbours are joined."""
    spans: list[Span] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # where each open bracket's contents begin in `spans`

    def scale(start: int, factor: float) -> None:
        spans[start:] = [replace(span, weight=span.weight * factor) for span in spans[start:]]

    for match in _SIGNS.finditer(prompt):
        kind, sign = match.lastgroup, match.group()
        if kind == "open":
            opened[sign].append(len(spans))
        elif kind == "weight" and opened["("]:
            scale(opened["("].pop(), float(match["weight"]))
        elif sign == ")" and opened["("]:
            scale(opened["("].pop(), STRONGER)
        elif sign == "]" and opened["["]:
            scale(opened["["].pop(), 1 / STRONGER)
        else:
            spans.append(Span(match["escaped"] or sign))
    for sign, factor in (("(", STRONGER), ("[", 1 / STRONGER)):
        for start in opened[sign]:
            scale(start, factor)
    return spans


def _joined(spans: Sequence[Span]) -> list[Span]:
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].weight == span.weight:
            joined[-1] = Span(joined[-1].text + span.text, span.weight)
        else:
            joined.append(span)
    return joined
