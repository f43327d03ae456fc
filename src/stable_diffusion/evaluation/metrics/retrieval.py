"""Choosing the right one: retrieval among a number of candidates, and forced choice between a few sentences.

Legend: N pictures and their N sentences, D dimensions, A alternatives.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import InvalidRequest

TIE = 1e-9
"""Scores nearer than this are equal: sums of one and the same vectors differ by rounding from place to place."""


def retrieval(queries: Tensor, keys: Tensor, among: int = 100) -> float:
    """Share of queries [N,D] whose own key (the row of the same number in keys [N,D]) beats among - 1 others.

    The others are drawn from the N - 1 remaining keys, and the share is the exact expectation over all draws: with b
    keys better than the own one it is C(N - 1 - b, among - 1) / C(N - 1, among - 1). A tie counts as a place drawn at
    random among the equals. What ignores the queries scores exactly 1 / among. `among` is cut to N.
    """
    scores = queries.double() @ keys.double().T  # [N, N]
    own = scores.diagonal()[:, None]
    others = ~torch.eye(len(scores), dtype=torch.bool)
    better = ((scores > own + TIE) & others).sum(dim=1).tolist()
    equal = (((scores - own).abs() <= TIE) & others).sum(dim=1).tolist()
    chances = [_chance(len(scores), min(among, len(scores)), b, e) for b, e in zip(better, equal, strict=True)]
    return math.fsum(chances) / len(chances)


def _chance(count: int, among: int, better: int, equal: int) -> float:
    """Chance that a key with so many better and equally good ones is the best of `among` drawn with it."""
    draws = math.comb(count - 1, among - 1)
    places = [math.comb(count - 1 - b, among - 1) / draws for b in range(better, better + equal + 1)]
    return math.fsum(places) / len(places)


def forced_choice(pictures: Tensor, sentences: Tensor, right: Tensor) -> Tensor:
    """Whether each picture [N,D] is nearest to its right sentence among its own alternatives [N,A,D], right [N] -> [N].

    In float: 1 right, 0 wrong, 1 / k where k alternatives are equally near. Chance is 1 / A.
    """
    if sentences.ndim != 3 or len(sentences) != len(pictures) or len(right) != len(pictures):
        raise InvalidRequest(
            f"{len(pictures)} pictures, sentences of shape {list(sentences.shape)} and {len(right)} answers do not fit"
        )
    scores = torch.einsum("nd,nad->na", pictures.double(), sentences.double())
    best = scores >= scores.amax(dim=1, keepdim=True) - TIE
    return best[torch.arange(len(right)), right].double() / best.sum(dim=1)
