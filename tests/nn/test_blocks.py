"""Convolution blocks: identity at the start, time, sizes of the resamplings."""

import pytest
import torch

from stable_diffusion.nn.blocks import Downsample, ResBlock, Upsample


def test_new_resblock_is_the_identity_or_its_skip():
    x = torch.randn(2, 8, 5, 7)
    assert torch.equal(ResBlock(8, 8, groups=4)(x), x)
    wider = ResBlock(8, 12, groups=4)
    assert torch.equal(wider(x), wider.skip(x))


def test_time_reaches_the_output():
    block = ResBlock(8, 12, time_width=6, groups=4)
    torch.nn.init.normal_(block.conv2.weight)
    x = torch.randn(2, 8, 5, 7)
    a, b = block(x, torch.zeros(2, 6)), block(x, torch.ones(2, 6))
    assert a.shape == (2, 12, 5, 7) and not torch.allclose(a, b)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5), (1, 2)])
def test_downsample_sizes(height, width):
    x = torch.randn(1, 4, height, width)
    assert Downsample(4)(x).shape == (1, 4, (height + 1) // 2, (width + 1) // 2)
    if min(height, width) > 1:
        assert Downsample(4, pad_end=True)(x).shape == (1, 4, height // 2, width // 2)


def test_downsample_looks_where_it_should():
    """The first output sees rows -1, 0, 1 with padding on every side, and rows 0, 1, 2 with padding at the end."""
    x = torch.zeros(1, 1, 6, 6)
    x[..., 2, 2] = 1.0
    for pad_end, seen in ((False, False), (True, True)):
        layer = Downsample(1, pad_end=pad_end)
        torch.nn.init.ones_(layer.conv.weight)
        torch.nn.init.zeros_(layer.conv.bias)
        assert (layer(x)[0, 0, 0, 0] > 0) == seen


def test_upsample_doubles_or_takes_the_size():
    layer = Upsample(1)
    torch.nn.init.zeros_(layer.conv.weight)
    layer.conv.weight.data[0, 0, 1, 1] = 1.0
    torch.nn.init.zeros_(layer.conv.bias)
    x = torch.randn(2, 1, 3, 4)
    assert torch.equal(layer(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(layer(x, (5, 7)), layer(x)[..., :5, :7])
