"""Masks: soft edges, the box of the masked part, Lanczos, fills and margins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline.tasks import masks
from stable_diffusion.request.pictures import plain_mode
from stable_diffusion.request.settings import FILLS

LATENT = torch.randn(1, 2, 1, 5, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(1, 2, 1, 5, generator=torch.Generator().manual_seed(1))
MASK = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).view(1, 1, 1, 5)


def _mask(size: tuple[int, int], box: masks.Box) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return mask


def test_blur_keeps_a_constant_and_the_mean_and_softens_the_edge() -> None:
    for grey in (0, 77, 255):
        assert masks.blurred_mask(Image.new("L", (20, 12), grey), 3).getextrema() == (grey, grey)
    mask = _mask((64, 64), (24, 24, 40, 40))
    soft = np.array(masks.blurred_mask(mask, 3), dtype=float)
    assert soft.mean() == pytest.approx(np.array(mask).mean(), rel=0.03)
    assert soft[32, 23] == pytest.approx(255 * 0.434, abs=8)  # half a pixel outside: Phi(-0.5 / 3)
    assert soft[32, 21] == pytest.approx(255 * 0.202, abs=8)  # two and a half: Phi(-2.5 / 3)
    assert masks.blurred_mask(mask, 0).tobytes() == mask.tobytes()


@pytest.mark.parametrize("size", [(64, 64), (96, 32), (32, 96)])
def test_the_box_holds_the_mask_with_its_padding_in_the_wanted_shape(size: tuple[int, int]) -> None:
    left, top, right, bottom = masks.region_box(_mask((400, 400), (180, 190, 210, 200)), 5, size)
    assert left <= 175 and top <= 185 and right >= 215 and bottom >= 205
    assert (right - left) * size[1] == pytest.approx((bottom - top) * size[0], abs=max(size))
    assert min(right - left - 40, bottom - top - 20) == 0
    assert abs((left + right) - 390) <= 1 and abs((top + bottom) - 390) <= 1


def test_the_box_is_moved_inside_and_cut_where_it_cannot_fit() -> None:
    corner = _mask((100, 80), (0, 0, 10, 20))
    assert masks.region_box(corner, 4, (64, 64)) == (0, 0, 24, 24)
    assert masks.region_box(_mask((100, 80), (95, 70, 100, 80)), 0, (64, 64)) == (90, 70, 100, 80)
    assert masks.region_box(corner, 500, (64, 64)) == (0, 0, 100, 80)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_black_mask_has_no_box(mode: str) -> None:
    with pytest.raises(InvalidRequest, match="black everywhere"):
        masks.region_box(Image.new(mode, (8, 8), "black"), 2, (8, 8))


def test_lanczos_of_the_same_size_is_the_identity_and_keeps_a_constant() -> None:
    picture = torch.rand(2, 3, 6, 8)
    assert torch.equal(masks.lanczos(picture, 6, 8), picture)
    assert masks.lanczos(picture.double(), 6, 8).dtype == torch.float32
    flat = masks.lanczos(torch.full((2, 4, 6, 8), 0.3), 9, 20)
    assert flat.shape == (2, 4, 9, 20) and torch.allclose(flat, torch.tensor(0.3), atol=1e-6)
    ramp = torch.linspace(0, 1, 32).view(1, 1, 1, 32).expand(1, 2, 4, 32)
    inner = masks.lanczos(ramp, 4, 64)[0, 1, 0, 12:-12]
    assert torch.allclose(inner.diff(), torch.tensor(0.5 / 31), atol=2e-3) and inner.unique().numel() == len(inner)


def test_what_is_pasted_fills_its_box_and_nothing_else() -> None:
    whole, part = torch.rand(1, 3, 10, 12), torch.rand(1, 3, 4, 5)
    made = masks.pasted(part, whole, (2, 3, 7, 7))
    assert torch.equal(made[..., 3:7, 2:7], part)
    made[..., 3:7, 2:7] = whole[..., 3:7, 2:7]
    assert torch.equal(made, whole)
    edge = torch.tensor([0.0, 1.0]).repeat_interleave(4).expand(1, 3, 8, 8)
    assert float(masks.lanczos(edge, 20, 20).max()) > 1.01
    made = masks.pasted(edge, torch.zeros(1, 3, 20, 20), (0, 0, 20, 20))
    assert float(made.min()) == 0 and float(made.max()) == 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_fill_leaves_unmasked_pixels_and_takes_colours_from_around(mode: str) -> None:
    pixels = np.random.default_rng(0).integers(60, 90, (21, 30, 4), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    mask = _mask((30, 21), (7, 5, 22, 16))
    image.paste("white", mask=mask)
    made, plain = np.array(masks.fill_masked(image, mask)), np.array(plain_mode(image))
    hidden = np.array(mask) > 0
    assert np.array_equal(made[~hidden], plain[~hidden])
    assert made[hidden].min() >= 60 and made[hidden].max() < 90
    flat = masks.fill_masked(Image.new("RGB", (30, 21), (10, 200, 30)), mask)
    assert flat.getextrema() == ((10, 10), (200, 200), (30, 30))


def test_what_the_masked_latent_starts_as() -> None:
    expected = {"fill": LATENT, "original": LATENT, "latent noise": NOISE, "latent nothing": torch.zeros(1, 2, 1, 5)}
    for name in FILLS:
        made = masks.start_latent(LATENT, MASK, name, NOISE)
        assert torch.equal(made[..., :1], LATENT[..., :1]) and torch.equal(made[..., 1:], expected[name][..., 1:])


def test_margins_grow_to_multiples_of_the_factor() -> None:
    assert masks.even_margins((64, 60), (3, 0, 5, 0), 8) == (3, 0, 5, 4)
    assert masks.even_margins((60, 60), (3, 3, 0, 1), 8) == (4, 3, 0, 1)
    assert masks.even_margins((60, 64), (0, 8, 0, 0), 8) == (0, 8, 4, 0)
    assert masks.even_margins((60, 64), (1, 4, 1, 2), 8) == (1, 4, 3, 4)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_extended_picture_keeps_its_pixels_and_the_mask_is_what_was_added(mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, len(mode)), dtype=np.uint8)
    canvas, mask = masks.extended(Image.fromarray(pixels), (1, 2, 3, 4))
    assert canvas.size == mask.size == (11, 12) and canvas.mode == mode
    assert np.array_equal(np.array(canvas)[2:8, 1:8], pixels)
    white = np.full((12, 11), 255)
    white[2:8, 1:8] = 0
    assert np.array_equal(np.array(mask), white)
