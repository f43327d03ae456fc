"""How like two pictures are, pixel by pixel: PSNR, SSIM and the overlap of their outlines.

Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity" (equation 13;
section III.B: Gaussian window of 11 pixels, sigma 1.5).
Shapes: B batch, C channels (1, 3, or 4 with alpha last), H W picture size. Values lie in a `Span`: 0 to 1 in pictures,
-1 to 1 in networks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InvalidRequest

Span = tuple[float, float]
UNIT: Span = (0.0, 1.0)
SIGNED: Span = (-1.0, 1.0)

CEILING = 100.0
"""PSNR in dB of equal pictures; the true value is infinite, which averages and JSON cannot hold."""


def psnr(first: Tensor, second: Tensor, span: Span = UNIT) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(range^2 / mean squared error) in dB, float32 [B]; at most `CEILING`."""
    check_same_shape(first, second)
    peak = (span[1] - span[0]) ** 2
    error = (first.float() - second.float()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(peak / error.clamp(min=peak * 10 ** (-CEILING / 10)))


def ssim(first: Tensor, second: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity [B] of pictures from 0 to 1, in float64: 1 for equal pictures.

    The mean over channels and places where the Gaussian window fits; pictures smaller than it get a smaller one.
    """
    check_same_shape(first, second)
    weights = gaussian(min(window, *first.shape[-2:]), sigma)
    channels = first.shape[1]

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, weights.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)
        return F.conv2d(x, weights.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)

    return structure(first.double(), second.double(), blur, UNIT).mean(dim=(1, 2, 3))


def box_ssim(first: Tensor, second: Tensor, window: int = 7, span: Span = UNIT) -> Tensor:
    """Mean structural similarity of a batch, a scalar, with a box window: quick, and good to train with."""
    return structure(first, second, lambda x: F.avg_pool2d(x, window, 1), span).mean()


def structure(first: Tensor, second: Tensor, blur: Callable[[Tensor], Tensor], span: Span) -> Tensor:
    """The map of structural similarity (equation 13) with `blur` as the local mean: [B,C,H',W'], at most 1."""
    peak = span[1] - span[0]
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_a, mean_b = blur(first), blur(second)
    var_a, var_b = blur(first * first) - mean_a**2, blur(second * second) - mean_b**2
    cov = blur(first * second) - mean_a * mean_b
    return (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def alpha_iou(first: Tensor, second: Tensor, span: Span = UNIT) -> Tensor:
    """Intersection over union [B] of what is more opaque than not in RGBA pictures; 1 where both are empty."""
    check_same_shape(first, second)
    if first.shape[1] != 4:
        raise InvalidRequest(f"the pictures have {first.shape[1]} channels; expected 4, the last of them alpha")
    half = (span[0] + span[1]) / 2
    a, b = first[:, 3] > half, second[:, 3] > half
    union, both = (a | b).sum(dim=(1, 2)).float(), (a & b).sum(dim=(1, 2)).float()
    return torch.where(union > 0, both / union.clamp(min=1), torch.ones_like(union))


def over_white(pictures: Tensor) -> Tensor:
    """Straight RGBA [B,4,H,W] from 0 to 1 -> RGB [B,3,H,W] over white; pictures without alpha stay as they are."""
    if pictures.shape[1] != 4:
        return pictures
    colour, alpha = pictures[:, :3], pictures[:, 3:]
    return colour * alpha + (1 - alpha)


def gaussian(window: int, sigma: float) -> Tensor:
    """`window` weights of a bell curve, which sum to 1, in float64."""
    offsets = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    return weights / weights.sum()


def check_same_shape(first: Tensor, second: Tensor) -> None:
    """InvalidRequest where these are not two batches of pictures of one shape."""
    if first.ndim != 4 or first.shape != second.shape:
        raise InvalidRequest(f"pictures of shapes {list(first.shape)} and {list(second.shape)} cannot be compared")
