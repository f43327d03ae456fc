"""Pictures to tensors and back, in every mode that files come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline import image as im
from stable_diffusion.request import pictures


def noise_picture(mode: str, size: tuple[int, int] = (13, 7), seed: int = 0) -> Image.Image:
    channels = {"RGB": 3, "RGBA": 4, "L": 1, "LA": 2}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0])


def test_straight_round_trip_is_exact() -> None:
    for mode in ("RGB", "RGBA"):
        picture = noise_picture(mode)
        (again,) = im.to_images(im.to_straight(picture))
        assert again.mode == mode and again.tobytes() == picture.tobytes()


def test_rgb_model_round_trip_is_exact() -> None:
    picture = noise_picture("RGB")
    (again,) = im.to_images(im.from_model(im.to_model(picture, 3)))
    assert again.tobytes() == picture.tobytes()


def test_rgba_model_pictures_are_premultiplied_and_come_back() -> None:
    picture = noise_picture("RGBA")
    model = im.to_model(picture, 4)
    straight = im.to_straight(picture)
    assert torch.allclose((model[:, :3] + 1) / 2, straight[:, :3] * straight[:, 3:], atol=1e-6)
    (again,) = im.to_images(im.from_model(model))
    shown = np.array(picture)[..., 3] > 0
    assert (np.array(again)[shown] == np.array(picture)[shown]).all()
    assert (np.array(again)[~shown] == 0).all()


def test_rgb_gains_alpha_one_and_rgba_loses_it_over_white() -> None:
    assert (im.to_model(noise_picture("RGB"), 4)[:, 3] == 1).all()
    clear = Image.new("RGBA", (2, 3), (10, 20, 30, 0))
    assert torch.equal(im.to_model(clear, 3), torch.ones(1, 3, 3, 2))


def test_odd_modes_become_rgb_or_rgba() -> None:
    grey16 = Image.fromarray(np.array([[0, 65535], [32768, 257]], dtype=np.uint16))
    assert np.array(pictures.plain_mode(grey16))[..., 0].tolist() == [[0, 255], [128, 1]]
    unit = Image.fromarray(np.array([[0.0, 1.0], [0.5, 0.25]], dtype=np.float32))
    assert np.array(pictures.plain_mode(unit))[..., 1].tolist() == [[0, 255], [128, 64]]
    palette = Image.new("P", (2, 2))
    palette.info["transparency"] = 0
    assert pictures.plain_mode(palette).mode == "RGBA"
    for mode, expected in (("1", "RGB"), ("L", "RGB"), ("LA", "RGBA"), ("CMYK", "RGB"), ("HSV", "RGB"), ("P", "RGB")):
        assert pictures.plain_mode(Image.new(mode, (3, 2))).mode == expected


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter to show
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert pictures.open_picture(tmp_path / "turned.jpg").size == (2, 4)


def test_bad_files_are_plain_sentences(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    picture = noise_picture("RGB", (64, 64))
    picture.save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    for source, match in (
        (tmp_path / "none.png", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "text.png", "not a picture that Pillow can read"),
        (tmp_path / "cut.png", "cannot be read"),
        (7, "expected a Pillow image"),
    ):
        with pytest.raises(InvalidRequest, match=match):
            pictures.open_picture(source)  # type: ignore[arg-type]


def test_cover_crops_and_never_distorts() -> None:
    picture = Image.new("RGB", (40, 20), "blue")
    picture.paste("red", (0, 0, 10, 20))
    picture.paste("red", (30, 0, 40, 20))
    assert set(np.unique(np.array(pictures.cover(picture, 20, 20))[:, 2:-2, 2]).tolist()) == {255}
    assert pictures.cover(picture, 40, 20) is picture
    assert pictures.cover(picture, 80, 40).size == (80, 40)


def test_latent_mask_takes_any_touched_square() -> None:
    mask = Image.new("L", (24, 16), 0)
    mask.putpixel((9, 3), 1)
    assert im.latent_mask(im.mask_tensor(mask), 8)[0, 0].tolist() == [[0, 1, 0], [0, 0, 0]]


def test_transparent_mask_is_black() -> None:
    mask = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
    mask.putpixel((1, 0), (255, 255, 255, 255))
    assert im.mask_tensor(mask).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("painted", "original"), [("RGB", "RGB"), ("RGBA", "RGBA"), ("RGB", "RGBA"), ("RGBA", "RGB")])
def test_put_back_keeps_bytes_outside_the_mask(painted: str, original: str) -> None:
    new, old = noise_picture(painted, seed=1), noise_picture(original, seed=2)
    mask = torch.zeros(1, 1, 7, 13)
    mask[..., 3:8] = 1
    mask[..., 8] = 0.5
    (result,) = im.to_images(im.put_back(im.to_straight(new), im.to_straight(old), mask))
    mode = "RGBA" if "RGBA" in (painted, original) else "RGB"
    got = np.array(result)
    assert result.mode == mode
    keep, paint = np.r_[0:3, 9:13], np.r_[3:8]
    assert (got[:, keep] == np.array(old.convert(mode))[:, keep]).all()
    assert (got[:, paint] == np.array(new.convert(mode))[:, paint]).all()


def test_fitting_size() -> None:
    assert im.fitting_size((512, 768), (512, 512), 8) == (512, 768)
    assert im.fitting_size((4000, 3000), (512, 512), 64) == (576, 448)
    assert im.fitting_size((511, 511), (512, 512), 8) == (512, 512)
    assert im.fitting_size((10000, 10), (64, 64), 8) == (2024, 8)
