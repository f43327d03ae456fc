"""Words that a prompt may use though no vocabulary has them: each stands for one or more learned vectors.

A word's vectors get ids that follow the vocabulary's, so that windows, weights and clip skip treat them like any token.

Shapes: n vectors of a word, N of all words, D width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Segment(NamedTuple):
    """A run of text; `ids` are those of its vectors where it is a new word, and None where it is plain text."""

    text: str
    ids: tuple[int, ...] | None = None


class NewWords:
    """Names and their vectors [n,D], in a fixed order; the first vector of all has the id `first`."""

    def __init__(self, vectors: Mapping[str, Tensor], first: int) -> None:
        self.vectors = dict(vectors)
        self._ids: dict[str, tuple[int, ...]] = {}
        self._names: dict[int, str] = {}
        for name, rows in self.vectors.items():
            ids = tuple(range(first, first + rows.shape[0]))
            first += rows.shape[0]
            self._ids[name.casefold()] = ids
            self._names.update(dict.fromkeys(ids, ""))
            self._names[ids[0]] = name
        self._pattern = _pattern(self.vectors)

    def table(self) -> Tensor | None:
        """All vectors below one another, [N,D], or None without any word."""
        if not self.vectors:
            return None
        import torch

        return torch.cat(list(self.vectors.values()))

    def split(self, text: str) -> list[Segment]:
        """The text as plain runs and new words. Names are found as whole words, in any case, the longest first;
        `embedding:NAME` is another way to write them."""
        if self._pattern is None:
            return [Segment(text)]
        segments: list[Segment] = []
        end = 0
        for match in self._pattern.finditer(text):
            if match.start() > end:
                segments.append(Segment(text[end : match.start()]))
            segments.append(Segment(match[1], self._ids[match[1].casefold()]))
            end = match.end()
        return [*segments, Segment(text[end:])] if end < len(text) else segments

    def name_of(self, token: int) -> str | None:
        """The word whose first vector has this id, an empty text for its other vectors, None for other ids."""
        return self._names.get(token)

    def goes_on(self, token: int) -> bool:
        """Whether this id is a further vector of a word, after its first."""
        return self._names.get(token) == ""


def mentioned(names: Sequence[str], text: str) -> list[str]:
    """Those of `names` that occur in the text as new words would."""
    pattern = _pattern(names)
    if pattern is None:
        return []
    found = {match[1].casefold() for match in pattern.finditer(text)}
    return [name for name in names if name.casefold() in found]


def _pattern(names: Mapping[str, object] | Sequence[str]) -> re.Pattern[str] | None:
    # A name may begin or end with any sign ("<cat-toy>"), so a border is asked for only beside letters and digits.
    ordered = sorted((name for name in names if name.strip()), key=len, reverse=True)
    if not ordered:
        return None
    choices = "|".join(re.escape(name) for name in ordered)
    return re.compile(rf"(?:\bembedding:)?(?<!\w)({choices})(?!\w)", re.IGNORECASE)
