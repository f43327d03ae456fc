"""The kernel distance between two clouds of points (KID): squared maximum mean discrepancy without bias.

Sources: Gretton et al. 2012, "A kernel two-sample test" (equation 3); Binkowski et al. 2018, "Demystifying MMD GANs"
(section 4: the cubic polynomial kernel).
Legend: N points, D dimensions; all in float64.
"""

from __future__ import annotations

from torch import Tensor

from ..errors import InvalidRequest


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Unbiased MMD^2 between first [N,D] and second [M,D]: about 0, at times below, for sets of one distribution.

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j). InvalidRequest under two points.
    """
    for points in (first, second):
        if points.ndim != 2 or len(points) < 2:
            raise InvalidRequest(f"the points have shape {list(points.shape)}; expected at least two rows of numbers")
    first, second = first.double(), second.double()
    return _within(first) + _within(second) - 2 * float(polynomial_kernel(first, second).mean())


def polynomial_kernel(first: Tensor, second: Tensor) -> Tensor:
    """k(x, y) = (x . y / D + 1)^3 for rows of first [N,D] and second [M,D] -> [N,M]."""
    return (first @ second.T / first.shape[1] + 1) ** 3


def _within(points: Tensor) -> float:
    """Mean of the kernel over pairs of different points."""
    kernel, count = polynomial_kernel(points, points), len(points)
    return float((kernel.sum() - kernel.trace()) / (count * (count - 1)))
