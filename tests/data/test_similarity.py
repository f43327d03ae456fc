"""PSNR, SSIM and the overlap of outlines: cases with a known answer, in both spans of values."""

from __future__ import annotations

import math

import pytest
import torch

from stable_diffusion.data.similarity import CEILING, SIGNED, alpha_iou, box_ssim, over_white, psnr, ssim
from stable_diffusion.errors import InvalidRequest


def test_psnr_of_a_known_error() -> None:
    dark = torch.zeros(2, 3, 5, 7)
    assert torch.allclose(psnr(dark, dark + 0.1), torch.tensor([20.0, 20.0]))
    assert psnr(dark, dark).tolist() == [CEILING, CEILING]
    with pytest.raises(InvalidRequest, match="cannot be compared"):
        psnr(dark, dark[:1])


def test_ssim_of_equal_and_flat_pictures() -> None:
    picture = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(ssim(picture, picture), torch.ones(2, dtype=torch.float64))
    flat = ssim(torch.full((1, 1, 16, 20), 0.25), torch.full((1, 1, 16, 20), 0.75))
    assert math.isclose(float(flat), (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4), rel_tol=1e-6)
    assert float(ssim(picture[:1], 1 - picture[:1])) < 0  # contrast turned round
    assert ssim(picture[:, :, :5, :5], picture[:, :, :5, :5]).shape == (2,)  # smaller than the window


def test_alpha_iou_and_white_ground() -> None:
    first, second = torch.zeros(2, 4, 4, 4), torch.zeros(2, 4, 4, 4)
    first[0, 3, :2], second[0, 3, 1:3] = 1.0, 1.0  # 8 and 8 pixels, 4 in common
    assert torch.allclose(alpha_iou(first, second), torch.tensor([4 / 12, 1.0]))
    white = over_white(first)
    assert white.shape == (2, 3, 4, 4) and float(white[0, :, 0].max()) == 0.0 and float(white[1].min()) == 1.0
    with pytest.raises(InvalidRequest, match="expected 4"):
        alpha_iou(first[:, :3], second[:, :3])


def test_the_span_of_values_changes_nothing() -> None:
    """The same pictures from 0 to 1 and from -1 to 1."""
    first, second = (torch.rand(2, 4, 16, 20, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    torch.testing.assert_close(psnr(first * 2 - 1, second * 2 - 1, SIGNED), psnr(first, second))
    assert torch.equal(alpha_iou(first * 2 - 1, second * 2 - 1, SIGNED), alpha_iou(first, second))
    assert psnr(first - 1, first - 1, SIGNED).tolist() == [CEILING, CEILING]


def test_box_ssim_by_hand() -> None:
    """One window over all: means 1/2, variances 1/4, covariance -1/4 for a picture and its negative."""
    picture = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 2, 2)
    c1, c2 = 1e-4, 9e-4
    expected = (0.5 + c1) * (-0.5 + c2) / ((0.5 + c1) * (0.5 + c2))
    assert math.isclose(float(box_ssim(picture, 1 - picture, window=2)), expected, rel_tol=1e-5)
    assert math.isclose(float(box_ssim(picture, picture, window=2)), 1.0, rel_tol=1e-6)
