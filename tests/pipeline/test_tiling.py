"""Edges that meet: padding and resizing across them, models that commute with rolling, even poles, the XMP mark."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from stable_diffusion.pipeline import denoiser
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.pipeline.tasks.masks import lanczos
from stable_diffusion.pipeline.tasks.seamless import Wrapped, even_poles, padded, resized, sphere_xmp
from stable_diffusion.request.settings import FLAT, Wrap

X, BOTH, SPHERE = Wrap(x=True), Wrap(x=True, y=True), Wrap(x=True, sphere=True)


@pytest.mark.parametrize(("wrap", "window"), [(X, 0), (BOTH, 0), (SPHERE, 0), (X, 4)], ids=str)
def test_rolled_noise_gives_the_rolled_latent(
    wrap: Wrap, window: int, tiny_native_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def latent(edges: Wrap) -> torch.Tensor:
        process = tiny_native_model.denoising_process
        return list(process("a cat", seed=3, steps=3, size=(8, 8), wrap=edges, window=window, overlap=2))[-1].x

    before, flat, source = latent(wrap), latent(FLAT), denoiser.noise_source

    def rolled(*arguments: object, **named: object) -> object:
        found = source(*arguments, **named)  # type: ignore[arg-type]
        start = found.start().roll(4, -1)
        monkeypatch.setattr(found, "start", lambda: start)
        return found

    monkeypatch.setattr(denoiser, "noise_source", rolled)
    assert torch.allclose(latent(wrap), before.roll(4, -1), atol=1e-4)
    if not window:
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
    wide = padded(x, SPHERE, 1, 1, 2, 1)
    assert wide.shape == (1, 1, 7, 10)
    assert torch.equal(wide[0, 0, 1, 1:-1], x[0, 0, 0].roll(4))
    assert torch.equal(wide[0, 0, 0, 1:-1], x[0, 0, 1].roll(4))
    assert torch.equal(wide[0, 0, -1, 1:-1], x[0, 0, -1].roll(4))
    assert torch.equal(wide[0, 0, :, 0], wide[0, 0, :, 8]) and torch.equal(wide[0, 0, :, 9], wide[0, 0, :, 1])


def test_poles_are_even_and_the_equator_untouched() -> None:
    torch.manual_seed(0)
    noise = torch.rand(1, 3, 64, 128)
    smooth = even_poles(noise)
    spread = smooth.std(dim=(0, 1, 3))
    assert spread[0] < 0.25 * spread[32] and spread[-1] < 0.25 * spread[32]
    assert torch.allclose(smooth[..., 31:33, :], noise[..., 31:33, :], atol=2e-3)
    assert torch.allclose(smooth.mean(-1), noise.mean(-1), atol=1e-5)
    assert torch.allclose(even_poles(noise.roll(5, -1)), smooth.roll(5, -1), atol=1e-5)


def _bilinear(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return nn.functional.interpolate(x, size=(height, width), mode="bilinear")


def test_a_flat_picture_is_resized_as_ever() -> None:
    x = torch.rand(1, 2, 4, 6)
    assert torch.equal(resized(x, FLAT, 8, 9, _bilinear), _bilinear(x, 8, 9))


@pytest.mark.parametrize("size", [(4, 6), (8, 12), (6, 9), (5, 7), (2, 3)])
@pytest.mark.parametrize("wrap", [X, BOTH, SPHERE], ids=str)
def test_a_resize_keeps_constants_and_shape(wrap: Wrap, size: tuple[int, int]) -> None:
    made = resized(torch.full((2, 3, 4, 6), 0.3), wrap, *size, lanczos)
    assert made.shape == (2, 3, *size) and torch.allclose(made, torch.tensor(0.3), atol=1e-6)
    x = torch.rand(2, 3, 4, 6)
    assert torch.equal(resized(x, wrap, 4, 6, lanczos), x)


def test_a_doubled_ring_mixes_its_ends_a_quarter() -> None:
    x = torch.rand(1, 1, 4, 6)
    ring = resized(x, X, 4, 12, _bilinear)[..., 0::2], resized(x, X, 4, 12, _bilinear)[..., 1::2]
    assert torch.allclose(ring[0], 0.75 * x + 0.25 * x.roll(1, -1))
    assert torch.allclose(ring[1], 0.75 * x + 0.25 * x.roll(-1, -1))
    rows = resized(x, BOTH, 8, 6, _bilinear)
    assert torch.allclose(rows[..., 0, :], 0.75 * x[..., 0, :] + 0.25 * x[..., -1, :])
    open_rows = resized(x, X, 8, 6, _bilinear)
    assert torch.allclose(open_rows[..., 0, :], x[..., 0, :]) and torch.allclose(open_rows[..., -1, :], x[..., -1, :])


def test_a_doubled_sphere_mixes_each_pole_with_its_other_side() -> None:
    x = torch.rand(1, 1, 4, 6)
    made = resized(x, SPHERE, 8, 6, _bilinear)
    for pole in (0, -1):
        assert torch.allclose(made[..., pole, :], 0.75 * x[..., pole, :] + 0.25 * x[..., pole, :].roll(3, -1))


@pytest.mark.parametrize("wrap", [X, BOTH, SPHERE], ids=str)
def test_a_resize_commutes_with_turning_the_ring(wrap: Wrap) -> None:
    x = torch.rand(1, 3, 4, 6)
    turned = resized(x.roll(2, -1), wrap, 6, 9, lanczos)
    assert torch.allclose(turned, resized(x, wrap, 6, 9, lanczos).roll(3, -1), atol=1e-5)
    assert not torch.allclose(lanczos(x.roll(2, -1), 6, 9), lanczos(x, 6, 9).roll(3, -1), atol=1e-2)


def test_the_xmp_packet_says_whole_sphere() -> None:
    text = sphere_xmp(1024, 512).decode("utf-8")
    assert text.startswith('<?xpacket begin="\ufeff" id=') and text.endswith('<?xpacket end="w"?>')
    (description,) = ElementTree.fromstring(text).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    space = "{http://ns.google.com/photos/1.0/panorama/}"
    found = {key.removeprefix(space): value for key, value in description.attrib.items() if key.startswith(space)}
    assert found == {
        "ProjectionType": "equirectangular",
        "UsePanoramaViewer": "True",
        "FullPanoWidthPixels": "1024",
        "FullPanoHeightPixels": "512",
        "CroppedAreaImageWidthPixels": "1024",
        "CroppedAreaImageHeightPixels": "512",
        "CroppedAreaLeftPixels": "0",
        "CroppedAreaTopPixels": "0",
    }
