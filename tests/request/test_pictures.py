"""Pictures in every form in which Python programs hold them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.request.pictures import open_picture
from stable_diffusion.request.request import Request

PIXELS = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
IMAGE = Image.fromarray(PIXELS)


def file_bytes(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    IMAGE.save(file, kind)
    return file.getvalue()


def forms(folder: Path) -> dict[str, Any]:
    IMAGE.save(folder / "a.png")
    channels_first = torch.from_numpy(PIXELS).permute(2, 0, 1)
    return {
        "path": folder / "a.png",
        "text": str(folder / "a.png"),
        "bytes": file_bytes(),
        "bytearray": bytearray(file_bytes("BMP")),
        "file in memory": io.BytesIO(file_bytes()),
        "open file": open(folder / "a.png", "rb"),
        "uint8": PIXELS,
        "int64": PIXELS.astype(np.int64),
        "float": PIXELS.astype(np.float32) / 255,
        "double": PIXELS / 255,
        "uint8 tensor": channels_first,
        "float tensor": channels_first.float() / 255,
        "half tensor with gradient": (channels_first.half() / 255).requires_grad_(),
        "batch of one": channels_first[None],
    }


def test_every_form_is_the_same_picture(tmp_path: Path) -> None:
    for name, source in forms(tmp_path).items():
        found = Request("a", image=source).image
        assert found is not None and found.convert("RGB").tobytes() == IMAGE.tobytes(), name


def test_grey_and_alpha_keep_their_mode() -> None:
    modes = {(6, 4): "L", (6, 4, 1): "L", (6, 4, 3): "RGB", (6, 4, 4): "RGBA"}
    for shape, mode in modes.items():
        found = open_picture(np.zeros(shape, dtype=np.uint8))
        assert (found.mode, found.size) == (mode, (4, 6))
        if len(shape) == 3:
            assert open_picture(torch.zeros(shape[2], 6, 4)).mode == mode
    assert open_picture(np.eye(3, dtype=bool)).getpixel((1, 1)) == 255
    assert open_picture(torch.ones(5, 7)).size == (7, 5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "image is None; expected a Pillow image, the path or bytes of a picture, or an array"),
        ([[1, 2]], "image is a list; expected a Pillow image"),
        (b"", "image of 0 bytes is not a picture"),
        (file_bytes()[:45], "image of 45 bytes cannot be read"),
        (io.BytesIO(b"no picture"), "is not a picture that Pillow can read"),
        (np.zeros((4, 4, 2)), r"image has the shape \[4, 4, 2\]; expected \[H,W\], \[H,W,3\] or \[H,W,4\]"),
        (np.zeros((0, 4)), "image has the shape"),
        (np.zeros(5), "image has the shape"),
        (torch.zeros(2, 3, 8, 8), r"image has the shape \[2, 3, 8, 8\]; expected \[C,H,W\]"),
        (torch.zeros(8, 8, 3), r"expected \[C,H,W\] with C of 1, 3 or 4"),
        (np.full((2, 2), 300), "image holds whole numbers from 300 to 300; expected 0 to 255"),
        (np.full((2, 2), -0.5), "image holds numbers from -0.5 to -0.5; expected 0 to 1"),
        (np.full((2, 2), np.nan), "image holds numbers from nan to nan; expected 0 to 1"),
        (np.full((2, 2), "x"), "image is an array of <U1"),
        (np.full((2, 2), 1j), "image is an array of complex128"),
    ],
)
def test_what_is_no_picture_is_one_sentence(source: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        open_picture(source)
    assert "\n" not in str(caught.value)
