"""Pictures and masks as people have them: any size, depth and shade, brought to what a run needs with a note."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stable_diffusion.pipeline.generate import generate_image
from stable_diffusion.pipeline.image import covering_size, fitting_size
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.pipeline.tasks.given_pictures import BLACK, framed, ready_mask
from stable_diffusion.pipeline.tasks.wildcards import WildcardFolder
from stable_diffusion.request.pictures import plain_mode
from stable_diffusion.request.request import MAX_SEED, Request
from stable_diffusion.text.variants import resolve_variants

SETTINGS: dict[str, Any] = {"seed": 1, "steps": 2, "strength": 0.9}


def speckled(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def painted(model: StableDiffusion, image: Any, **settings: Any) -> tuple[Image.Image, str]:
    """A picture, and all notes on it."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        made = generate_image("a cat", model=model, image=image, **{**SETTINGS, **settings})
    return made, "; ".join(str(note.message) for note in notes)


def ready(mask: Image.Image, size: tuple[int, int] = (32, 32), **inpaint: Any) -> tuple[np.ndarray[Any, Any], str]:
    request = Request("a", image=Image.new("RGB", size), mask=mask, inpaint=inpaint)
    grey, notes = ready_mask(request, request.image)  # type: ignore[arg-type]
    return np.asarray(grey), "; ".join(notes)


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (33, 32), (30, 27), (41, 17), (8, 8), (100, 90), (301, 50), (7, 200)])
def test_pixels_outside_the_mask_stay_at_any_size(
    size: tuple[int, int], only: bool, tiny_model: StableDiffusion
) -> None:
    image, mask = speckled(*size), Image.new("L", size)
    mask.paste(255, (size[0] // 3, size[1] // 3, size[0] // 2 + 1, size[1] // 2 + 1))
    made, notes = painted(tiny_model, image, mask=mask, inpaint={"only_masked": only})
    kept = np.asarray(mask) == 0
    assert made.size == size and (np.asarray(made)[kept] == np.asarray(image)[kept]).all()
    assert (np.asarray(made)[~kept] != np.asarray(image)[~kept]).any()
    odd = size[0] % 8 or size[1] % 8 or size == (100, 90)
    assert only or ("put back into its own size" in notes) == bool(odd), notes


def test_a_picture_of_an_odd_size_is_the_same_from_its_own_request(tiny_model: StableDiffusion) -> None:
    mask = Image.new("L", (30, 27))
    mask.paste(255, (5, 5, 12, 12))
    first, _ = painted(tiny_model, speckled(30, 27), mask=mask)
    again, _ = painted(tiny_model, speckled(30, 27), mask=mask, width=32, height=32)
    assert again.tobytes() == first.tobytes() and again.info == first.info


def test_sizes_to_paint_at() -> None:
    assert fitting_size((513, 512), (256, 256), 8) == (512, 512), "one pixel more does not halve the picture"
    assert covering_size((513, 512), (256, 256), 8) == (520, 512) and covering_size((64, 32), (256, 256), 8) == (64, 32)
    assert covering_size((4000, 4000), (256, 256), 8) == (256, 256)


def test_a_mask_that_is_nearly_black_is_black() -> None:
    grey = np.zeros((32, 32), np.uint8)
    grey[8:16, 8:16] = 255
    for level in (1, 5, BLACK):
        found, notes = ready(Image.fromarray(np.maximum(grey, level)))
        assert (found == grey).all() and "not quite black" in notes
        found, notes = ready(Image.fromarray(255 - np.maximum(grey, level)), invert=True)
        assert (found[8:16, 8:16] == 255).all() or (found > 0).any()
    assert ready(Image.fromarray(grey)) == (pytest.approx(grey), "")
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (ready(Image.fromarray(ramp), (16, 16))[0] == np.where(ramp > BLACK, ramp, 0)).all(), "greys are kept"
    assert ready(Image.fromarray(ramp), (16, 16), soft=True)[0][0, 10] == 10, "a soft mask's greys are strengths"


def test_masks_of_other_kinds() -> None:
    labels = np.zeros((32, 32), np.uint8)
    labels[8:16, 8:16] = 1
    white = labels * np.uint8(255)
    assert (ready(Image.fromarray(labels))[0] == white).all()
    strokes = Image.fromarray(np.dstack([np.zeros((32, 32, 3), np.uint8), white]))
    found, notes = ready(strokes)
    assert (found == white).all() and "alpha" in notes
    for mode in ("1", "LA", "RGB", "RGBA", "P", "CMYK"):
        assert (ready(Image.fromarray(white).convert("RGB").convert(mode))[0] > BLACK).tolist() == (white > 0).tolist()
    assert (ready(Image.fromarray(white.astype(np.uint16) * np.uint16(257)))[0] == white).all()
    found, notes = ready(Image.fromarray(white), (64, 64))
    assert (
        found.shape == (64, 64) and (found[20:28, 20:28] == 255).all() and not found[:14].any() and "resized" in notes
    )
    assert "nothing is repainted" in ready(Image.new("L", (32, 32), 1))[1]


def test_a_frame_keeps_the_shape() -> None:
    image = speckled(40, 10)
    made, box = framed(image, (32, 32), 8, edge=True)
    assert (made.size, box) == ((32, 32), (0, 12, 32, 20))
    assert (np.asarray(made)[:12] == np.asarray(made)[12]).all(), "the border goes on"
    assert framed(Image.new("L", (40, 10), 255), (32, 32), 8, edge=False)[0].getbbox() == box
    made, box = framed(speckled(30, 27), (32, 32), 8, edge=True)
    assert box == (0, 0, 30, 27) and made.crop(box).tobytes() == speckled(30, 27).tobytes()
    assert framed(speckled(64, 63), (32, 32), 8, edge=True)[1] == (0, 0, 32, 32), "nearly its shape is its shape"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"])
def test_pictures_of_every_mode_are_taken(mode: str, tiny_model: StableDiffusion) -> None:
    image = Image.new(mode, (32, 32))
    made, notes = painted(tiny_model, image)
    assert made.size == (32, 32)
    assert ("is of mode" in notes) == (mode not in ("1", "L", "LA", "P", "RGBA"))


def test_depths_keep_their_brightness(tmp_path: Path) -> None:
    dark = np.full((4, 4), 200, np.uint16)
    assert plain_mode(Image.fromarray(dark)).getpixel((0, 0)) == (1, 1, 1), "dark grey of 16 bits is dark"
    for top in (1.0, 255.0, 65535.0):
        floats = np.array([[0, top], [top / 2, np.nan]], dtype=np.float32)
        assert np.asarray(plain_mode(Image.fromarray(floats)))[..., 0].tolist() == [[0, 255], [128, 0]]
    Image.fromarray(dark * np.uint16(300)).save(tmp_path / "a.tiff")
    found = Request("a", image=str(tmp_path / "a.tiff")).image  # type: ignore[arg-type]
    assert found is not None and plain_mode(found).getpixel((0, 0)) == (233, 233, 233)
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=1)
    assert np.asarray(plain_mode(Image.open(file)))[0].tolist() == [[255, 0, 0, 255], [0, 255, 0, 0]]


def test_a_turned_photo_and_its_mask_are_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (32, 16)).save(file, "JPEG", exif=exif)
    request = Request("a", image=file.getvalue(), mask=Image.new("L", (16, 32)))  # type: ignore[arg-type]
    assert request.image is not None and request.image.size == (16, 32)


def test_empty_prompts_and_seeds_of_64_bits(tiny_model: StableDiffusion) -> None:
    assert generate_image("", model=tiny_model, seed=MAX_SEED, steps=1).size == (48, 32)
    made = generate_image(
        "", model=tiny_model, image=speckled(32, 32), noise={"source": "nv"}, **{**SETTINGS, "seed": MAX_SEED}
    )
    assert MAX_SEED == 2**64 - 1 and f"Seed: {MAX_SEED}" in made.info["parameters"]


def test_wildcards_with_spaces_and_folders(tmp_path: Path) -> None:
    (tmp_path / "my words").mkdir()
    (tmp_path / "hair color.txt").write_text("red hair\n")
    (tmp_path / "my words" / "Big trees.txt").write_text("an oak\n")
    folder = WildcardFolder(tmp_path)
    for prompt, wanted in {
        "a __hair color__ girl": "a red hair girl",
        "__my words/Big trees__": "an oak",
        "__my words\\big trees__, x": "an oak, x",
        "__Hair Color__": "red hair",
        "(__hair color__:1.2)": "(red hair:1.2)",
        "{__hair color__|__hair color__}": "red hair",
        "snake__case and other__name": "snake__case and other__name",
    }.items():
        assert resolve_variants(prompt, 1, folder) == wanted
