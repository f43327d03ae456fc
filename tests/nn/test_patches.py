"""Patches of a latent as channels, and the linear guess of their detail."""

import pytest
import torch

from stable_diffusion.nn.patches import detail_velocity, fold, unfold


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_folding_and_unfolding(size):
    x = torch.randn(2, 3, *size)
    folded = fold(x, 2)
    assert folded.shape == (2, 12, (size[0] + 1) // 2, (size[1] + 1) // 2)
    assert torch.equal(unfold(folded, 2, *size), x)


@pytest.mark.parametrize("time", [0.05, 0.5, 0.95])
def test_the_guess_is_the_least_squares_slope(time):
    """Detail of variance 0.3 beside an even ground: no other slope of the noisy latent's detail comes nearer."""
    torch.manual_seed(0)
    picture = 0.3**0.5 * torch.randn(64, 4, 16, 16) + 5 * torch.randn(64, 4, 1, 1)
    noise = torch.randn_like(picture)
    x = (1 - time) * picture + time * noise

    def detail(y):
        parts = fold(y, 2).view(64, 4, 4, 8, 8)
        return unfold((parts - parts.mean(dim=2, keepdim=True)).view(64, 16, 8, 8), 2, 16, 16)

    wanted, seen = detail(noise - picture), detail(x)
    slope = (wanted * seen).sum() / seen.square().sum()
    guess = detail_velocity(x, torch.full((64,), time), 2, 0.3)
    torch.testing.assert_close(guess, slope * seen, rtol=0.05, atol=0.05)


def test_what_is_alike_in_a_patch_gets_no_guess():
    x = torch.randn(1, 2, 3, 3).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert detail_velocity(x, torch.tensor([0.4]), 2, 0.2).abs().max() < 1e-6
