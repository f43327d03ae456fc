"""Edges that meet: padding across them, the denoiser commutes with rolling, even poles."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stable_diffusion.pipeline import process
from stable_diffusion.pipeline.model import StableDiffusion
from stable_diffusion.pipeline.tiling import FLAT, Wrap, Wrapped, even_poles
from stable_diffusion.pipeline.windows import Windows

X, BOTH, SPHERE = Wrap(x=True), Wrap(x=True, y=True), Wrap(x=True, sphere=True)


@pytest.mark.parametrize(("wrap", "windows"), [(X, None), (BOTH, None), (SPHERE, None), (X, Windows(4, 4, 2))], ids=str)
def test_rolled_noise_gives_the_rolled_latent(
    wrap: Wrap, windows: Windows | None, tiny_native_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def latent(edges: Wrap) -> torch.Tensor:
        run = tiny_native_model.denoising_process("a cat", seed=3, steps=3, size=(8, 8), wrap=edges, windows=windows)
        return list(run)[-1].x

    before, flat, source = latent(wrap), latent(FLAT), process.noise_source

    def rolled(*arguments: object, **named: object) -> object:
        found = source(*arguments, **named)  # type: ignore[arg-type]
        start = found.start().roll(4, -1)
        monkeypatch.setattr(found, "start", lambda: start)
        return found

    monkeypatch.setattr(process, "noise_source", rolled)
    assert torch.allclose(latent(wrap), before.roll(4, -1), atol=1e-4)
    if windows is None:
        assert not torch.allclose(latent(FLAT), flat.roll(4, -1), atol=1e-2)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_that_wraps_is_the_one_of_three_copies(stride: int) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(2, 3, 3, stride=stride, padding=1), torch.randn(1, 2, 8, 12)
    with Wrapped(BOTH):
        ring = conv(x)
    tiled = conv(x.repeat(1, 1, 3, 3))[..., 8 // stride : 16 // stride, 12 // stride : 24 // stride]
    assert torch.allclose(ring, tiled, atol=1e-6)
    with Wrapped(FLAT):
        assert torch.equal(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias, stride, 1))


def test_over_the_pole_lies_the_other_side() -> None:
    x = torch.arange(32.0).view(1, 1, 4, 8)
    padded = SPHERE.pad(x, 1, 1, 2, 1)
    assert padded.shape == (1, 1, 7, 10)
    assert torch.equal(padded[0, 0, 1, 1:-1], x[0, 0, 0].roll(4))
    assert torch.equal(padded[0, 0, 0, 1:-1], x[0, 0, 1].roll(4))
    assert torch.equal(padded[0, 0, -1, 1:-1], x[0, 0, -1].roll(4))
    assert torch.equal(padded[0, 0, :, 0], padded[0, 0, :, 8]) and torch.equal(padded[0, 0, :, 9], padded[0, 0, :, 1])


def test_poles_are_even_and_the_equator_untouched() -> None:
    torch.manual_seed(0)
    noise = torch.rand(1, 3, 64, 128)
    smooth = even_poles(noise)
    spread = smooth.std(dim=(0, 1, 3))
    assert spread[0] < 0.25 * spread[32] and spread[-1] < 0.25 * spread[32]
    assert torch.allclose(smooth[..., 31:33, :], noise[..., 31:33, :], atol=2e-3)
    assert torch.allclose(smooth.mean(-1), noise.mean(-1), atol=1e-5)
    assert torch.allclose(even_poles(noise.roll(5, -1)), smooth.roll(5, -1), atol=1e-5)
