"""How like two pictures are, pixel by pixel: PSNR, SSIM and the overlap of their outlines.

Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity" (equation 13;
section III.B: Gaussian window of 11 pixels, sigma 1.5).
Shapes: B batch, C channels (1, 3, or 4 with straight alpha), H W picture size; values from 0 to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InvalidRequest

CEILING = 100.0
"""PSNR in dB of equal pictures; the true value is infinite, which averages and JSON cannot hold."""


def over_white(pictures: Tensor) -> Tensor:
    """Straight RGBA [B,4,H,W] -> RGB [B,3,H,W] over white; pictures without alpha stay as they are."""
    if pictures.shape[1] != 4:
        return pictures
    colour, alpha = pictures[:, :3], pictures[:, 3:]
    return colour * alpha + (1 - alpha)


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(1 / mean squared error) in dB, [B]; `CEILING` for equal pictures."""
    _check(first, second)
    error = (first.double() - second.double()).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error.clamp(min=10 ** (-CEILING / 10)))


def ssim(first: Tensor, second: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity [B], 1 for equal pictures; the mean over channels and places where the window fits."""
    _check(first, second)
    window = min(window, *first.shape[-2:])
    weights = _gaussian(window, sigma)
    channels = first.shape[1]

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, weights.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)
        return F.conv2d(x, weights.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)

    a, b = first.double(), second.double()
    c1, c2 = 0.01**2, 0.03**2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    score = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return score.mean(dim=(1, 2, 3))


def alpha_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union [B] of what is more opaque than not in RGBA pictures; 1 where both are empty."""
    _check(first, second)
    if first.shape[1] != 4:
        raise InvalidRequest(f"the pictures have {first.shape[1]} channels; expected 4, the last of them alpha")
    a, b = first[:, 3] > 0.5, second[:, 3] > 0.5
    union, both = (a | b).sum(dim=(1, 2)).double(), (a & b).sum(dim=(1, 2)).double()
    return torch.where(union > 0, both / union.clamp(min=1), torch.ones_like(union))


def _gaussian(window: int, sigma: float) -> Tensor:
    offsets = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    return weights / weights.sum()


def _check(first: Tensor, second: Tensor) -> None:
    if first.ndim != 4 or first.shape != second.shape:
        raise InvalidRequest(f"pictures of shapes {list(first.shape)} and {list(second.shape)} cannot be compared")
