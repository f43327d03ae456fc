"""What a request accepts, what it refuses and in which words, and how it is filled in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline.resolve import PixelGrid, fill_in
from stable_diffusion.request.request import MAX_SEED, Request
from stable_diffusion.weights.parts import Defaults

DEFAULTS = Defaults(width=64, height=96, steps=12, guidance=4.5, sampler="dpmpp_2m", schedule="karras")
PICTURE = Image.new("RGB", (64, 64))

BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": 7}, "prompt is 7; expected text"),
    ({"prompt": "x" * 10_001}, "prompt has 10001 characters; expected at most 10000"),
    ({"prompt": "a\0b"}, "prompt holds the character U+0000, which is not text"),
    ({"negative_prompt": "\ud800"}, "negative_prompt holds the character U+D800, which is not text"),
    ({"width": 0}, "width is 0; expected a whole number from 1 to 8192"),
    ({"width": 10**30}, f"width is {10**30}; expected a whole number from 1 to 8192"),
    ({"height": 64.0}, "height is 64.0; expected a whole number from 1 to 8192"),
    ({"steps": 0}, "steps is 0; expected a whole number from 1 to 1000"),
    ({"steps": True}, "steps is True; expected a whole number from 1 to 1000"),
    ({"guidance": float("nan")}, "guidance is nan; expected a number from 0 to 100"),
    ({"guidance": float("inf")}, "guidance is inf; expected a number from 0 to 100"),
    ({"guidance": 10**400}, "expected a number from 0 to 100"),
    ({"guidance": "7"}, "guidance is '7'; expected a number from 0 to 100"),
    ({"strength": 1.5, "image": PICTURE}, "strength is 1.5; expected a number from 0 to 1"),
    ({"seed": -2}, f"seed is -2; expected a whole number from 0 to {MAX_SEED}"),
    ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
    ({"seed": MAX_SEED, "count": 2}, "leaves no room for 2 pictures"),
    ({"count": 0}, "count is 0; expected a whole number from 1 to 1000"),
    ({"count": None}, "count is None; expected a whole number from 1 to 1000"),
    ({"sampler": "eular"}, "unknown sampler 'eular': did you mean 'euler'?"),
    ({"schedule": "karas"}, "unknown schedule 'karas': did you mean 'karras'?"),
    ({"guidance_rescale": 2}, "guidance_rescale is 2; expected a number from 0 to 1"),
    ({"guidance_rescale": None}, "guidance_rescale is None; expected a number from 0 to 1"),
    ({"guidance_interval": (0.5, 0.5)}, "guidance_interval is (0.5, 0.5); expected the first to be less than the last"),
    ({"guidance_interval": 0.5}, "guidance_interval is 0.5; expected two numbers (first, last) from 0 to 1"),
    ({"clip_skip": 0}, "clip_skip is 0; expected a whole number from 1 to 100"),
    ({"mask": PICTURE}, "a mask was given without an image"),
    ({"image": "nowhere.png"}, "image 'nowhere.png' does not exist"),
    ({"image": b"bytes"}, "image of 5 bytes is not a picture that Pillow can read"),
    ({"image": 7}, "image is 7; expected a Pillow image, the path or bytes of a picture, or an array"),
]


@pytest.mark.parametrize(("values", "sentence"), BAD, ids=lambda value: str(value)[:40])
def test_bad_values_are_plain_sentences(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(sentence)) as caught:
        Request(**{"prompt": "a cat", **values})
    assert "\n" not in str(caught.value)


def filled(request: Request, **facts: Any) -> Request:
    values = {
        "defaults": DEFAULTS,
        "grid": PixelGrid(8, 32),
        "name": "tiny",
        "automatic": lambda sampler: "exponential",
        **facts,
    }
    return fill_in(request, **values).request


def test_what_is_left_out_comes_from_the_model() -> None:
    request = filled(Request("a cat"))
    assert (request.width, request.height, request.steps, request.guidance) == (64, 96, 12, 4.5)
    assert (request.sampler, request.schedule, request.model) == ("dpmpp_2m", "karras", "tiny")
    assert request.strength is None and request.clip_skip is None
    assert request.seed is not None and 0 <= request.seed < 2**32
    assert filled(Request("a cat")).seed != request.seed


def test_zero_is_a_value_and_not_a_gap() -> None:
    request = filled(Request("a cat", guidance=0, seed=0, strength=0, image=PICTURE))
    assert (request.guidance, request.seed, request.strength) == (0, 0, 0)


def test_minus_one_is_a_random_seed() -> None:
    assert Request("a cat", seed=-1).seed is None


def test_numpy_numbers_are_numbers() -> None:
    request = Request("a cat", steps=np.int64(5), guidance=np.float32(2.5), seed=np.uint32(9))  # type: ignore[arg-type]
    assert (request.steps, request.guidance, request.seed) == (5, 2.5, 9)
    assert type(request.steps) is int and type(request.guidance) is float


def test_names_are_made_canonical() -> None:
    for given, sampler, schedule in (
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("k_euler_a", "euler_ancestral", None),
        ("Euler a", "euler_ancestral", None),
        ("DPM++ 2M SDE Heun", "DPM++ 2M SDE Heun", None),
        ("uni_pc", "uni_pc", None),
    ):
        request = Request("a cat", sampler=given)
        assert (request.sampler, request.schedule) == (sampler, schedule), given
    assert Request("a cat", sampler="DPM++ 2M Karras", schedule="Align Your Steps").schedule == "ays"
    assert Request("a cat", schedule="Automatic").schedule == "automatic"


def test_schedule_of_another_sampler_is_its_own() -> None:
    assert filled(Request("a", sampler="euler")).schedule == "exponential"
    assert filled(Request("a", schedule="Automatic")).schedule == "exponential"
    assert filled(Request("a", sampler="euler", schedule="beta")).schedule == "beta"
    combined = Defaults(sampler="Euler Karras", schedule="normal")
    assert filled(Request("a"), defaults=combined).schedule == "karras"


def test_sizes_that_do_not_fit_name_the_nearest() -> None:
    with pytest.raises(
        InvalidRequest, match="the size 65x96 does not fit the model; expected multiples of 8, the nearest is 64x96"
    ):
        filled(Request("a", width=65))
    with pytest.raises(InvalidRequest, match="the nearest is 64x8"):
        filled(Request("a", height=3))


def test_size_follows_the_picture() -> None:
    assert (filled(Request("a", image=Image.new("RGB", (80, 40)))).width, 40) == (80, 40)
    wide = filled(Request("a", image=Image.new("RGB", (4000, 1000))))
    assert wide.width % 8 == 0 and wide.height % 8 == 0 and abs(wide.width / wide.height - 4) < 0.5
    given = filled(Request("a", image=PICTURE, width=128))
    assert (given.width, given.height) == (128, 96)


def test_strength_without_a_picture_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=re.escape("strength is 0.5, but there is no image to start from")):
        filled(Request("a", strength=0.5))


def test_tasks() -> None:
    assert Request("a").task == "txt2img"
    assert Request("a", image=PICTURE).task == "img2img"
    assert Request("a", image=PICTURE, mask=Image.new("L", (64, 64))).task == "inpaint"


def test_pictures_come_from_paths_too(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "in.png")
    request = Request("a", image=str(tmp_path / "in.png"))  # type: ignore[arg-type]
    assert request.image is not None and request.image.size == (64, 64)


def test_one_is_the_picture_alone() -> None:
    assert Request("a", seed=5, count=3).single(2) == Request("a", seed=7, count=1)


def test_prompts_lose_outer_space_and_carriage_returns() -> None:
    assert Request("  a\r\nb\rc \n").prompt == "a\nb\nc"
