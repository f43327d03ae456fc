"""Weights of multistep and exponential solvers: integrals of polynomials by Gauss's rule, and phi functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

POINTS = 24
"""Exact to degree 47; exp(-h u) over [0, 1] to double precision for h up to 20."""


@lru_cache
def _gauss() -> tuple[tuple[float, float], ...]:
    """(place, weight) on [0, 1]."""
    places, weights = np.polynomial.legendre.leggauss(POINTS)
    return tuple(zip(((places + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


def integral(function: Callable[[float], float], begin: float, end: float) -> float:
    """Integral of a smooth function over [begin, end]."""
    width = end - begin
    return width * math.fsum(weight * function(begin + place * width) for place, weight in _gauss())


def lagrange(nodes: Sequence[float], j: int, at: float) -> float:
    """The polynomial that is 1 at nodes[j] and 0 at the others."""
    return math.prod((at - other) / (nodes[j] - other) for k, other in enumerate(nodes) if k != j)


def lagrange_weights(
    nodes: Sequence[float], begin: float, end: float, density: Callable[[float], float]
) -> list[float]:
    """Integrals over [begin, end] of `density` times each Lagrange polynomial on `nodes`."""

    def weight(j: int) -> float:
        return integral(lambda at: density(at) * lagrange(nodes, j, at), begin, end)

    return [weight(j) for j in range(len(nodes))]


def phi_2(h: float) -> float:
    """(exp(-h) - 1) / h + 1, h > 0."""
    return math.expm1(-h) / h + 1


def phi_3(h: float) -> float:
    """phi_2(h) / h - 1/2, h > 0."""
    return phi_2(h) / h - 0.5
