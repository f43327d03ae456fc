"""How many different pictures a set holds in effect, and how far they are from one another.

Source: Friedman and Dieng 2023, "The Vendi Score: a diversity evaluation metric for machine learning" (definition 3.1).
Legend: N points, D dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InvalidRequest


def vendi_score(points: Tensor) -> float:
    """exp(entropy of the eigenvalues of K / N), K the cosines of points [N,D]: 1 if all equal, N if orthogonal."""
    if points.ndim != 2 or len(points) < 1:
        raise InvalidRequest(f"the points have shape {list(points.shape)}; expected at least one row of numbers")
    unit = F.normalize(points.double(), dim=1)
    values = torch.linalg.eigvalsh(unit @ unit.T / len(unit)).clamp(min=0)
    return math.exp(-float(torch.special.xlogy(values, values).sum()))


def mean_pairwise_distance(points: Tensor) -> float:
    """Mean of 1 - cosine over pairs of different points [N,D]: 0 if all equal, 1 if orthogonal; needs two."""
    if points.ndim != 2 or len(points) < 2:
        raise InvalidRequest(f"the points have shape {list(points.shape)}; expected at least two rows of numbers")
    unit, count = F.normalize(points.double(), dim=1), len(points)
    cosines = unit @ unit.T
    return 1 - float((cosines.sum() - cosines.trace()) / (count * (count - 1)))
