"""The numbers on size that SDXL is told, and the vector they become."""

from __future__ import annotations

import math

import pytest
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline.tasks.sdxl import with_size
from stable_diffusion.request.settings import SizeConditioning
from stable_diffusion.types import Conditioning


def test_heights_come_first_and_the_picture_s_own_size_is_the_default() -> None:
    assert SizeConditioning().numbers((48, 64), 6, negative=False) == [64, 48, 0, 0, 64, 48]
    told = SizeConditioning(original=(640, 512), crop=(32, 16), target=(1024, 768))
    assert told.numbers((48, 64), 6, negative=True) == [512, 640, 16, 32, 768, 1024]


def test_the_refiner_is_told_a_score_that_differs_for_the_negative_prompt() -> None:
    assert SizeConditioning().numbers((48, 64), 5, negative=False) == [64, 48, 0, 0, 6.0]
    assert SizeConditioning(negative_aesthetic_score=1.0).numbers((8, 8), 5, negative=True) == [8, 8, 0, 0, 1.0]


def test_features_follow_the_pooled_text() -> None:
    pooled = torch.randn(2, 3)
    conditioning = Conditioning(tokens=torch.randn(2, 7, 5), vector=pooled)
    made = with_size(conditioning, [0.0, 2.0], 3 + 2 * 4)
    assert made.vector is not None and torch.equal(made.vector[:, :3], pooled)
    expected = [1, 1, 0, 0, math.cos(2), math.cos(0.02), math.sin(2), math.sin(0.02)]
    torch.testing.assert_close(made.vector[:, 3:], torch.tensor([expected] * 2))
    assert with_size(made, [9.0, 9.0], 11) is made  # complete already


def test_what_does_not_fit_is_said() -> None:
    conditioning = Conditioning(tokens=torch.randn(1, 7, 5), vector=torch.randn(1, 3))
    with pytest.raises(InvalidRequest, match="has 3 numbers; 12 of the U-Net leave no room for 2 sizes"):
        with_size(conditioning, [1.0, 2.0], 12)
    with pytest.raises(InvalidRequest, match="has no vector"):
        with_size(Conditioning(tokens=torch.randn(1, 7, 5)), [1.0], 12)
