"""Texts are found wherever programs put them, and what is damaged beside a picture never costs it."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foreign_files import PLACES, chunk, damaged_exif, latin, picture, png, segment, utf8, with_exif
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.images import save_image
from stable_diffusion.request.metadata import parameters_text, parse_parameters, read_metadata
from stable_diffusion.request.pictures import open_picture
from stable_diffusion.request.request import Request

PROMPT = "テスト, 海上的日落, a (cat:1.2)"
TEXT = (
    f"{PROMPT}\nNegative prompt: ugly,\nlow\n"
    "Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 12, Size: 512x768, Version: v1.10.1"
)


@pytest.mark.parametrize("place", PLACES)
def test_a_text_is_read_wherever_it_is(place: str, tmp_path: Path) -> None:
    text = TEXT.replace("海上的日落", "夕日") if "JIS" in place else TEXT
    path = tmp_path / "a.png"
    path.write_bytes(PLACES[place](text))
    request = read_metadata(path).request
    assert request.prompt == text.split("\n")[0] and request.negative_prompt == "ugly,\nlow", place
    assert (request.steps, request.seed, request.width, request.height) == (20, 12, 512, 768)
    if not any(word in place for word in ("cut off", "damaged", "wrong")):
        assert read_metadata(Image.open(path)).request == request


def test_latin_and_ours_keep_their_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(latin("parameters", TEXT.replace(PROMPT, "caf\xe9 \xfcber"))))
    assert read_metadata(path).request.prompt == "caf\xe9 \xfcber"
    for prompt in ("café", "Ã©", "Â£ Ã¼", "\xff\xfe", "海"):
        request = Request(prompt, seed=1, steps=2, width=64, height=64, sampler="euler", schedule="normal", guidance=3)
        for name in ("b.png", "b.jpg", "b.webp"):
            saved = save_image(Image.new("RGB", (8, 8)), tmp_path / name, parameters=parameters_text(request))
            assert read_metadata(saved).request == request, (prompt, name)


BROKEN = {
    "zTXt": png(chunk(b"zTXt", b"x\0\0broken")),
    "iTXt": png(chunk(b"iTXt", b"x\0\1\0\0\0broken")),
    "a huge text": png(chunk(b"zTXt", b"x\0\0" + zlib.compress(b"a" * 2_000_000))),
    "a wrong checksum": png(utf8("a", "b")[:-1] + b"?"),
    "iCCP": png(chunk(b"iCCP", b"x\0\0nothing")),
    "eXIf": png(chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)),
    "pHYs": png(chunk(b"pHYs", b"\0")),
    "JPEG EXIF": damaged_exif("x"),
    "JPEG EXIF without a table": segment(0xE1, b"Exif\0\0"),
    "JPEG profile": segment(0xE2, b"ICC_PROFILE\0\x05\x01x"),
    "JPEG of several pictures": segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\xff\xff"),
    "JPEG Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff"),
    "WebP EXIF": picture("WEBP", exif=b"Exif\0\0nothing", lossless=True),
    "an orientation that is none": with_exif("JPEG", 99, 0x0112),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_beside_a_picture_does_not_cost_it(name: str) -> None:
    assert open_picture(BROKEN[name]).size == (96, 64)


def test_a_file_that_says_nothing_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for data in (png(), png(utf8("parameters", "a nice day")), png(utf8("prompt", '{"1": {}}')), picture("WEBP")):
        path.write_bytes(data)
        with pytest.raises(InvalidRequest, match="holds no generation parameters"):
            read_metadata(path)
    with pytest.raises(InvalidRequest, match="does not exist"):
        read_metadata(tmp_path / "b.png")


@pytest.mark.parametrize("sign", ["x", "é", "猫", "🐈", '"', "\n"])
def test_a_finished_picture_is_saved_with_what_fits(sign: str, tmp_path: Path) -> None:
    long = {"prompt": f"a{sign}" * 4990, "negative_prompt": f"b{sign}" * 4990}
    request = Request(**long, seed=7, steps=1, width=64, height=64, sampler="euler", guidance=3)
    text = parameters_text(request) + ", Lora hashes: " + "0123456789" * 2000
    with pytest.warns(UserWarning, match="too long for JPEG: its prompts are cut"):
        path = save_image(Image.new("RGB", (64, 64)), tmp_path / "a.jpg", parameters=text)
    info = read_metadata(path)
    assert info.request.seed == 7 and 500 < len(info.request.prompt) < 9980
    assert any("cut" in note for note in info.notes)
    assert read_metadata(save_image(Image.new("RGB", (8, 8)), tmp_path / "a.webp", parameters=text)).request.seed == 7
    with pytest.warns(UserWarning, match="the file is without it"):
        path = save_image(Image.new("RGB", (64, 64)), tmp_path / "b.jpg", parameters=text + "9" * 40_000)
    with pytest.raises(InvalidRequest, match="holds no generation parameters"):
        read_metadata(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "LAB", "HSV"])
def test_pictures_of_every_mode_are_saved(mode: str, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp"):
        image = Image.new(mode, (9, 7))
        image.info["parameters"] = "a \ud800\nSteps: 1, Seed: 2, Size: 8x8"
        assert Image.open(save_image(image, tmp_path / name)).size == (9, 7)
        assert parse_parameters(read_metadata(tmp_path / name).text.replace("\ufffd", "?")).request.seed == 2


def test_arrays_of_sixteen_bits() -> None:
    grey = np.array([[0, 65535], [32768, 257]], dtype=np.uint16)
    assert np.array(open_picture(grey)).tolist() == [[0, 255], [128, 1]]
