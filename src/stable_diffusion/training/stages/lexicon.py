"""Single words beside the captions: which thing of the pack a word means ("mallard": duck), for the text stage.

Legend: W words, N names, S teacher width.

The pack's lexicon.tsv has rows of a word and the name that captions use. Where the name is empty the teacher gives the
word to the name whose sentence vector is nearest, if near enough: its knowledge of the language becomes pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import InvalidRequest
from .teacher import sentence_vectors

FILE = "lexicon.tsv"
TEMPLATES = ("{}", "{}", "a {}", "a picture of a {}")
NEAR = 0.6  # cosine of two sentence vectors; below it most pairs only look alike (looked at in bands of 0.05)


class Lexicon:
    """words [W], the number of each word's name [W], names [N]; `sentence(word)` is what the teacher read."""

    def __init__(self, words: Sequence[str], owner: Sequence[int], names: Sequence[str]) -> None:
        self.words, self.names = tuple(words), tuple(names)
        self.owner: NDArray[np.int64] = np.array(owner, dtype=np.int64)

    def choose(self, count: int, *, seed: int, step: int) -> tuple[list[str], list[str], NDArray[np.int64]]:
        """(words in a sentence, their names in another, numbers of the names [count]); a function of (seed, step)."""
        random = np.random.default_rng([seed, 6, step])
        rows = random.integers(len(self.words), size=count)
        forms = random.integers(len(TEMPLATES), size=(count, 2))
        words = [_say(self.words[row], forms[k, 0]) for k, row in enumerate(rows)]
        names = [_say(self.names[self.owner[row]], forms[k, 1]) for k, row in enumerate(rows)]
        return words, names, self.owner[rows]


def _say(word: str, form: int) -> str:
    """A word in one of the templates; a Chinese one as it is."""
    return TEMPLATES[form].format(word) if word.isascii() else word


def read_rows(folder: Path) -> list[tuple[str, str]]:
    """(word, name or "") rows of the pack's lexicon; InvalidRequest where it has none or a row is not of two cells."""
    path = folder / FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InvalidRequest(f"lexicon_weight is not 0, but {path} cannot be read ({error.strerror})") from None
    rows = [line.split("\t") for line in lines if line]
    broken = [row for row in rows if len(row) != 2 or not row[0]]
    if broken or not rows:
        raise InvalidRequest(f"{path}: row {broken[:1] or 'none'}, expected a word, a tab, and a name or nothing")
    return [(word, name) for word, name in rows]


def build_lexicon(folder: Path, cache: Path | None, device: torch.device) -> Lexicon:
    """The pack's lexicon. cache: where the teacher's vectors are kept; None leaves out the words without a name."""
    rows = read_rows(folder)
    names = sorted({name for _, name in rows if name})
    place = {name: number for number, name in enumerate(names)}
    words, owner = [word for word, name in rows if name], [place[name] for _, name in rows if name]
    free = [word for word, name in rows if not name]
    if cache is not None and free:
        given = nearest_names(free, names, cache, device)
        words += [word for word, number in zip(free, given, strict=True) if number >= 0]
        owner += [number for number in given if number >= 0]
    return Lexicon([*words, *names], [*owner, *range(len(names))], names)


def nearest_names(words: Sequence[str], names: Sequence[str], cache: Path, device: torch.device) -> list[int]:
    """For each word the number of the name that the teacher finds nearest, or -1 where none is near."""
    texts = [f"a {word}" for word in (*words, *names)]
    vectors = torch.from_numpy(sentence_vectors(texts, cache, device)).float()
    likeness, best = (vectors[: len(words)] @ vectors[len(words) :].T).max(dim=1)
    return torch.where(likeness >= NEAR, best, -1).tolist()
