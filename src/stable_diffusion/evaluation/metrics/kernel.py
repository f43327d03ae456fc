"""Kernel distances between two clouds of points: squared maximum mean discrepancy without bias.

KID has a cubic polynomial kernel on any features, CMMD a Gaussian one on CLIP's unit vectors.
Sources: Gretton et al. 2012, "A kernel two-sample test" (equation 3); Binkowski et al. 2018, "Demystifying MMD GANs"
(section 4); Jayasumana et al. 2024, "Rethinking FID" (section 4, equation 4 for the unbiased estimate; sigma 10, and
values times 1000).
Legend: N points, D dimensions; all in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InvalidRequest

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Rows of [N,D] and of [M,D] -> [N,M]."""

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """KID between first [N,D] and second [M,D]: about 0, at times below, for sets of one distribution."""
    return squared_mmd(first, second, polynomial_kernel)


def cmmd(first: Tensor, second: Tensor) -> float:
    """CMMD between CLIP embeddings first [N,D] and second [M,D], which are normalised here; about 0 for equal ones."""
    first, second = F.normalize(first.double(), dim=-1), F.normalize(second.double(), dim=-1)
    return CMMD_SCALE * squared_mmd(first, second, gaussian_kernel)


def squared_mmd(first: Tensor, second: Tensor, kernel: Kernel) -> float:
    """mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j); InvalidRequest under 2 rows."""
    for points in (first, second):
        if points.ndim != 2 or len(points) < 2:
            raise InvalidRequest(f"the points have shape {list(points.shape)}; expected at least two rows of numbers")
    first, second = first.double(), second.double()
    return _within(first, kernel) + _within(second, kernel) - 2 * float(kernel(first, second).mean())


def polynomial_kernel(first: Tensor, second: Tensor) -> Tensor:
    """k(x, y) = (x . y / D + 1)^3."""
    return (first @ second.T / first.shape[1] + 1) ** 3


def gaussian_kernel(first: Tensor, second: Tensor) -> Tensor:
    """k(x, y) = exp(-|x - y|^2 / (2 sigma^2))."""
    squares = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.exp(-squares / (2 * CMMD_SIGMA**2))


def _within(points: Tensor, kernel: Kernel) -> float:
    """Mean of the kernel over pairs of different points."""
    values, count = kernel(points, points), len(points)
    return float((values.sum() - values.trace()) / (count * (count - 1)))
