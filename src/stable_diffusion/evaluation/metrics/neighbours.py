"""Nearest neighbours: whether painted pictures repeat training pictures.

The training pictures' own distances to their nearest neighbours say what near means: a painted picture nearer to one of
them than their 1st percentile counts as repeated (in the spirit of Carlini et al. 2023, "Extracting training data from
diffusion models", section 4.2, whose test is relative to the training set too).
Legend: N queries, M keys, D dimensions; rows are unit vectors, distances 1 - cosine.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1024


def nearest(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """For unit rows of queries [N,D]: distance to the nearest of keys [M,D] and its index, both [N]."""
    distances, indices = [], []
    for rows in torch.split(queries, CHUNK):
        best = (rows @ keys.T).max(dim=1)
        distances.append(1 - best.values)
        indices.append(best.indices)
    return torch.cat(distances).clamp(min=0), torch.cat(indices)


def own_distances(points: Tensor) -> Tensor:
    """Distance of every unit row of points [M,D] to the nearest other one, [M]."""
    distances = []
    for start in range(0, len(points), CHUNK):
        cosines = points[start : start + CHUNK] @ points.T  # [n, M]
        rows = torch.arange(len(cosines))
        cosines[rows, rows + start] = -torch.inf
        distances.append(1 - cosines.amax(dim=1))
    return torch.cat(distances).clamp(min=0)


def percentile(values: Tensor, share: float) -> float:
    """The value [N] under which `share` (0 to 1) of the values lie, with linear interpolation."""
    return float(torch.quantile(values.double(), share))
