"""The Fréchet distance between two clouds of points, each taken for a Gaussian.

Sources: Dowson and Landau 1982, "The Fréchet distance between multivariate normal distributions" (equation 4); Heusel
et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium" (FID).
Legend: N points, D dimensions; all in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InvalidRequest


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Squared Fréchet distance between the Gaussians fitted to first [N,D] and second [M,D]; 0 for equal sets.

    Biased upwards where N or M is small: compare it with that of as many real pictures. InvalidRequest under two
    points.
    """
    return gaussian_distance(*moments(first), *moments(second))


def moments(points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and unbiased covariance [D,D] of points [N,D]."""
    if points.ndim != 2 or len(points) < 2:
        raise InvalidRequest(f"the points have shape {list(points.shape)}; expected at least two rows of numbers")
    points = points.double()
    mean = points.mean(dim=0)
    centred = points - mean
    return mean, centred.T @ centred / (len(points) - 1)


def gaussian_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^(1/2) C_b C_a^(1/2))^(1/2)).

    The product is symmetric, so its root's trace is the sum of the roots of its eigenvalues: no general matrix square
    root is needed. Rounding can push the result a hair below 0, where it is cut.
    """
    root = symmetric_root(cov_a.double())
    product = root @ cov_b.double() @ root
    values = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0)
    shift = (mean_a.double() - mean_b.double()).square().sum()
    return max(0.0, float(shift + cov_a.double().trace() + cov_b.double().trace() - 2 * values.sqrt().sum()))


def symmetric_root(matrix: Tensor) -> Tensor:
    """The positive root [D,D] of a symmetric matrix without negative eigenvalues (those of rounding are cut to 0)."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
