"""Tools of the parity tests: random weights that hide nothing, and the error between two tensors."""

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def randomise():
    """Random values for every parameter, norms and zero-initialised layers too, at a scale that keeps signals alive."""

    def fill(model: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.data = noise * parameter[0].numel() ** -0.5
            else:
                parameter.data = 0.5 * noise + (1.0 if parameter.mean() > 0.5 else 0.0)
        return model.eval()

    return fill


@pytest.fixture
def relative_error():
    """Largest difference over largest value."""

    def error(ours: Tensor, theirs: Tensor) -> float:
        assert ours.shape == theirs.shape, f"{ours.shape} and {theirs.shape}"
        assert theirs.abs().max() > 1e-2, "the reference is (almost) zero, so it could hide an error"
        return ((ours - theirs).abs().max() / theirs.abs().max()).item()

    return error
