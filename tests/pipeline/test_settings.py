"""Settings of special tasks: what is filled in, and one plain sentence for each value that is unusable."""

from __future__ import annotations

from typing import Any

import pytest

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline.hires import UPSCALERS
from stable_diffusion.pipeline.masks import FILLS
from stable_diffusion.pipeline.settings import MAX_SEED, TaskSettings


def _checked(*, image: bool = False, mask: bool = False, count: int = 1, **values: Any) -> TaskSettings:
    settings = TaskSettings(**values)
    settings._check_tasks(image=image, mask=mask, count=count)
    settings._check_mask_there(image, mask)
    return settings


def test_nothing_given_changes_nothing() -> None:
    assert _checked() == TaskSettings()
    assert _checked(image=True, mask=True, count=100) == TaskSettings()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"tiling": True}, {"tiling": "both"}),
        ({"tiling": False}, {"tiling": None}),
        ({"tiling": "y"}, {"tiling": "y"}),
        ({"panorama": True, "tiling": "x"}, {"panorama": True, "tiling": None}),
        ({"variation_seed": -1, "variation_strength": 1}, {"variation_seed": None, "variation_strength": 1.0}),
        ({"variation_seed": MAX_SEED - 3, "count": 4}, {"variation_seed": MAX_SEED - 3}),
        ({"seed_resize": [512, 768]}, {"seed_resize": (512, 768)}),
        ({"hires": 8, "hires_steps": 1000, "hires_strength": 0}, {"hires": 8.0, "hires_strength": 0.0}),
        ({"hires": 1.01, "hires_upscaler": " lanczos"}, {"hires": 1.01, "hires_upscaler": "Lanczos"}),
        ({"mask_blur": None, "mask_padding": 8192, "mask": True}, {"mask_blur": 0.0, "mask_padding": 8192}),
        ({"mask_blur": 256, "only_masked": True, "soft_mask": True, "mask": True}, {"mask_blur": 256.0}),
        ({"outpaint": [0, 8, 0, 8192], "image": True, "mask_blur": 4}, {"outpaint": (0, 8, 0, 8192)}),
        ({"window": 16, "window_overlap": 15}, {"window": 16, "window_overlap": 15}),
        ({"window": 8192, "window_overlap": 0}, {"window": 8192, "window_overlap": 0}),
    ],
    ids=str,
)
def test_values_at_the_ends_of_their_ranges_are_kept(given: dict[str, Any], kept: dict[str, Any]) -> None:
    settings = _checked(**given)
    found = {name: getattr(settings, name) for name in kept}
    assert found == kept and [type(v) for v in found.values()] == [type(v) for v in kept.values()]


@pytest.mark.parametrize("name", UPSCALERS)
@pytest.mark.parametrize("fill", FILLS)
def test_every_listed_name_is_taken(name: str, fill: str) -> None:
    assert _checked(hires=2, hires_upscaler=name).hires_upscaler == name
    assert _checked(fill=fill, mask=True, image=True).fill == fill


OUT_OF_RANGE = {
    "panorama": (1, None, "yes"),
    "only_masked": (1, None),
    "soft_mask": (0.5, None),
    "tiling": ("xy", "X", 1, ["x"]),
    "variation_seed": (-2, MAX_SEED + 1, 1.5, True, "7"),
    "variation_strength": (-0.01, 1.01, float("nan"), None, "0.5", True),
    "seed_resize": (
        (512,),
        (512, 512, 512),
        (0, 512),
        (512, 8193),
        512,
        "ab",
        (512.0, 512),
        (512, 512, True),
        (True, 1),
    ),
    "hires": (1, 0.5, 8.01, float("inf"), True, "2"),
    "hires_steps": (0, 1001, 2.5, True),
    "hires_strength": (-0.1, 1.1, float("nan")),
    "hires_upscaler": ("ESRGAN", 3),
    "mask_blur": (-1, 257, float("nan"), "4"),
    "mask_padding": (-1, 8193, 1.5),
    "fill": ("noise", "Fill", 1, ["fill"]),
    "outpaint": ((0, 0, 0, 0), (1, 2, 3), (0, -1, 0, 0), (8193, 0, 0, 0), 64, (0, 0.5, 0, 0)),
    "window": (15, 8193, 64.0, True),
    "window_overlap": (-1, 64, 65, 0.5),
}
COMPANIONS: dict[str, dict[str, Any]] = {
    **{name: {"hires": 2} for name in ("hires_steps", "hires_strength", "hires_upscaler")},
    **{
        name: {"mask": True, "image": True}
        for name in ("only_masked", "soft_mask", "mask_blur", "mask_padding", "fill")
    },
    "outpaint": {"image": True},
    "window_overlap": {"window": 64},
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, v) for name, values in OUT_OF_RANGE.items() for v in values], ids=str
)
def test_a_value_out_of_range_is_one_sentence_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _checked(**{**COMPANIONS.get(name, {}), name: value})
    message = str(caught.value)
    assert name.replace("_", " ") in message.replace("_", " ") and "\n" not in message and ". " not in message
    assert "expected" in message or "choose from" in message


def test_every_setting_has_values_out_of_range() -> None:
    assert set(OUT_OF_RANGE) == set(TaskSettings.__dataclass_fields__)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"panorama": True, "tiling": "both"}, "leave out tiling 'both'"),
        ({"variation_seed": MAX_SEED - 2, "count": 4}, r"no room for 4 pictures; expected at most 2\^63 - 4"),
        ({"hires_steps": 5}, "hires_steps was given without hires"),
        ({"hires_strength": 0.5}, "hires_strength was given without hires"),
        ({"hires_upscaler": "Latent"}, "hires_upscaler was given without hires"),
        ({"hires": 2, "image": True}, "leave out image, or hires"),
        ({"hires": 2, "outpaint": (8, 0, 0, 0)}, "starts from text alone"),
        ({"outpaint": (8, 0, 0, 0)}, "without an image"),
        ({"outpaint": (8, 0, 0, 0), "image": True, "mask": True}, "leave out mask"),
        ({"outpaint": (8, 0, 0, 0), "image": True, "only_masked": True}, "leave out mask and only_masked"),
        ({"only_masked": True, "image": True}, "only_masked was given without a mask"),
        ({"soft_mask": True}, "soft_mask was given without a mask"),
        ({"fill": "original"}, "fill was given without a mask"),
        ({"mask_blur": 4}, "mask_blur was given without a mask"),
        ({"mask_padding": 32}, "mask_padding was given without a mask"),
        ({"window_overlap": 8}, "window_overlap was given without window"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_say_so(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        _checked(**given)
