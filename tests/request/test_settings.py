"""Groups of settings: what is kept, and one plain sentence for each value that is unusable."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import stable_diffusion
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline.resolve import PixelGrid, fill_in
from stable_diffusion.request.request import Request, Settings
from stable_diffusion.request.settings import (
    ABSENT,
    EMPHASES,
    FILLS,
    GROUPS,
    MAX_SEED,
    UPSCALERS,
    Canvas,
    Hires,
    Inpaint,
    Refiner,
    VariationSeed,
)
from stable_diffusion.weights.parts import Defaults

PICTURE = Image.new("RGB", (64, 64))
MASK = Image.new("L", (64, 64), 255)
DEFAULTS = Defaults(width=64, height=96, steps=12, guidance=4.5, sampler="dpmpp_2m", schedule="karras")


def filled(**values: Any) -> Request:
    """The request after `resolve`, on a model of three stages and eight pixels a latent."""
    request = Request("a cat", **values)
    facts = {"defaults": DEFAULTS, "grid": PixelGrid(8, 32), "name": "tiny"}
    return fill_in(request, automatic=lambda sampler: "karras", **facts).request


def test_nothing_given_changes_nothing() -> None:
    for name, kind in GROUPS.items():
        assert getattr(Request("a"), name) == (None if name in ABSENT else kind())
        assert getattr(Request("a", **{name: None}), name) == getattr(Request("a"), name)
        if name not in ABSENT:
            assert getattr(filled(), name) == kind()


def test_keyword_arguments_are_the_fields_of_a_request() -> None:
    fields = {name for name in Request.__dataclass_fields__ if name not in ("prompt", "model", "_")}
    assert set(Settings.__annotations__) == fields and set(GROUPS) <= fields
    assert {"prompt", "model", "engine", "callback", *fields} == set(
        inspect.signature(stable_diffusion.generate_image).parameters
    )
    assert "    guidance_rescale " in str(stable_diffusion.generate_image.__doc__)


def test_a_group_is_given_whole_as_a_mapping_or_for_hires_as_a_number() -> None:
    assert Request("a", hires=2).hires == Request("a", hires={"scale": 2.0}).hires == Hires(scale=2.0)
    assert Request("a", canvas=Canvas(tiling="x")) == Request("a", canvas={"tiling": "x"})  # type: ignore[arg-type]
    assert Request("a", refiner="b").refiner == Refiner(model="b") == Refiner(model="b", switch=0.8)
    with pytest.raises(InvalidRequest, match="refiner has no model; expected the path or name of one"):
        Request("a", refiner={"switch": 0.5})
    with pytest.raises(InvalidRequest, match="unknown setting of inpaint 'blurr': did you mean 'blur'"):
        Request("a", inpaint={"blurr": 4})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"canvas is 'x'; expected Canvas\(...\) or a mapping"):
        Request("a", canvas="x")  # type: ignore[arg-type]


def test_a_change_of_a_group_keeps_its_other_fields() -> None:
    request = Request("a", hires=Hires(scale=3, steps=5), canvas=Canvas(tiling="x", window=64))
    changed = request.with_changes(hires={"steps": 6}, canvas={"tiling": "y"}, seed=3)
    assert changed.hires == Hires(scale=3, steps=6) and changed.canvas == Canvas(tiling="y", window=64)
    assert changed.seed == 3 and request.with_changes(canvas=Canvas()).canvas == Canvas()


@pytest.mark.parametrize(
    ("group", "given", "kept"),
    [
        ("canvas", {"tiling": True}, {"tiling": "both"}),
        ("canvas", {"tiling": False}, {"tiling": None}),
        ("canvas", {"panorama": True, "tiling": "x"}, {"panorama": True, "tiling": None}),
        ("canvas", {"window": 8192, "window_overlap": 0}, {"window": 8192, "window_overlap": 0}),
        ("canvas", {"outpaint": [0, 8, 0, 8192]}, {"outpaint": (0, 8, 0, 8192)}),
        ("variation", {"seed": -1, "strength": 1}, {"seed": None, "strength": 1.0}),
        ("variation", {"seed": MAX_SEED}, {"seed": MAX_SEED}),
        ("variation", {"resize_from": [512, 768]}, {"resize_from": (512, 768)}),
        ("hires", {"scale": 8, "steps": 1000, "strength": 0}, {"scale": 8.0, "strength": 0.0}),
        ("hires", {"scale": 1}, {"scale": 1.0}),
        ("hires", {"upscaler": " lanczos"}, {"upscaler": "Lanczos"}),
        ("inpaint", {"blur": 256, "padding": 8192}, {"blur": 256.0, "padding": 8192}),
        ("noise", {"source": "nv", "eta": 10, "s_tmax": float("inf")}, {"source": "nv", "eta": 10.0, "s_tmax": None}),
        ("noise", {"seed_delta": None}, {"seed_delta": 0}),
        ("prompting", {"emphasis": " comfyui", "styles": "one"}, {"emphasis": "ComfyUI", "styles": ("one",)}),
        ("prompting", {"styles_file": "a.csv"}, {"styles_file": Path("a.csv")}),
    ],
    ids=str,
)
def test_values_at_the_ends_of_their_ranges_are_kept(group: str, given: dict[str, Any], kept: dict[str, Any]) -> None:
    settings = GROUPS[group](**given)
    found = {name: getattr(settings, name) for name in kept}
    assert found == kept and [type(v) for v in found.values()] == [type(v) for v in kept.values()]


def test_every_listed_name_is_taken() -> None:
    assert [Hires(upscaler=name.upper()).upscaler for name in UPSCALERS] == list(UPSCALERS)
    assert [Inpaint(fill=fill).fill for fill in FILLS] == list(FILLS)
    assert [GROUPS["prompting"](emphasis=name.lower()).emphasis for name in EMPHASES] == list(EMPHASES)  # type: ignore


NAN = float("nan")
OUT_OF_RANGE: dict[str, dict[str, tuple[Any, ...]]] = {
    "prompting": {
        "emphasis": ("Originel", 1),
        "styles": (3, [1], ("a", None)),
        "styles_file": (3,),
        "wildcards_dir": (True,),
        "variants": (1, None),
    },
    "noise": {
        "source": ("gpu", None),
        "seed_delta": (0.5, True, 2**63),
        "compat": ("comfy", 1111),
        "shift": (0, -3, NAN, "3"),
        "eta": (-0.1, 11, NAN, "1"),
        "s_churn": (-1, NAN),
        "s_tmin": (-1, float("inf")),
        "s_tmax": (-1, NAN),
        "s_noise": (-1, 11),
    },
    "variation": {
        "strength": (-0.01, 1.01, NAN, None, "0.5", True),
        "seed": (-2, MAX_SEED + 1, 1.5, True, "7"),
        "resize_from": ((512,), (512, 512, 512), (0, 512), (512, 8193), 512, "ab", (512.0, 512), (True, 1)),
    },
    "hires": {
        "scale": (0.99, 0.5, 8.01, float("inf"), True, "2", None),
        "steps": (0, 1001, 2.5, True),
        "strength": (-0.1, 1.1, NAN),
        "upscaler": ("ESRGAN", 3),
    },
    "refiner": {
        "model": (None, 3, ""),
        "switch": (-0.1, 1.1, NAN, None, "0.8"),
    },
    "micro_conditioning": {
        "original": (512, (0, 512), (512, 8193), "ab", (1, 2, 3)),
        "crop": (None, (-1, 0), (0.5, 0), 8),
        "target": (512, (0, 512)),
        "aesthetic_score": (0.5, 11, None, "6"),
        "negative_aesthetic_score": (0.5, 11, NAN),
    },
    "inpaint": {
        "blur": (-1, 257, NAN, "4"),
        "only_masked": (1, None),
        "padding": (-1, 8193, 1.5),
        "invert": (None,),
        "soft": (0.5, None),
        "fill": ("noise", "Fill", 1, ["fill"]),
    },
    "canvas": {
        "tiling": ("xy", "X", 1, ["x"]),
        "panorama": (1, None, "yes"),
        "outpaint": ((0, 0, 0, 0), (1, 2, 3), (0, -1, 0, 0), (8193, 0, 0, 0), 64, (0, 0.5, 0, 0)),
        "window": (7, 8193, 64.0, True),
        "window_overlap": (-1, 64, 65, 0.5),
    },
}
COMPANIONS = {"window_overlap": {"window": 64}, "switch": {"model": "b"}}
CASES = [(g, n, v) for g, names in OUT_OF_RANGE.items() for n, values in names.items() for v in values]


@pytest.mark.parametrize(("group", "name", "value"), CASES, ids=str)
def test_a_value_out_of_range_is_one_sentence_that_names_it(group: str, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Request("a cat", **{group: {**COMPANIONS.get(name, {}), name: value}})
    message = str(caught.value)
    known = (name, name.replace("_", " "), {"source": "noise source"}.get(name, name))
    assert any(word in message for word in known) and "\n" not in message and ". " not in message
    assert "expected" in message or "choose from" in message


def test_every_setting_has_values_out_of_range() -> None:
    assert {name: set(kind.__dataclass_fields__) for name, kind in GROUPS.items()} == {
        name: set(values) for name, values in OUT_OF_RANGE.items()
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"canvas": {"panorama": True, "tiling": "both"}}, "leave out tiling 'both'"),
        ({"variation": {"seed": MAX_SEED - 2}, "count": 4}, r"no room for 4 pictures; expected at most 2\^64 - 4"),
        ({"hires": 2, "image": PICTURE}, "leave out image, or hires"),
        ({"hires": 2, "canvas": {"outpaint": (8, 0, 0, 0)}}, "starts from text alone"),
        ({"hires": 8, "width": 2048}, "hires makes 16384x768 pixels; expected at most 8192"),
        ({"canvas": {"outpaint": (8, 0, 0, 0)}}, "without an image"),
        ({"canvas": {"outpaint": (8, 0, 0, 0)}, "image": PICTURE, "mask": MASK}, "leave out mask"),
        ({"canvas": {"outpaint": (8, 0, 0, 0)}, "inpaint": {"only_masked": True}}, "leave out mask, only_masked"),
        ({"canvas": {"outpaint": (8, 0, 0, 0)}, "image": PICTURE, "width": 64}, "outpaint makes 72x64"),
        ({"inpaint": {"only_masked": True}, "image": PICTURE}, "only_masked was given without a mask"),
        ({"inpaint": {"soft": True}}, "soft was given without a mask"),
        ({"inpaint": {"fill": "original"}}, "fill was given without a mask"),
        ({"inpaint": {"blur": 4}}, "blur was given without a mask"),
        ({"inpaint": {"padding": 32}}, "padding was given without a mask"),
        ({"canvas": {"window_overlap": 8}}, "window_overlap was given without window"),
        ({"canvas": {"window": 40}}, "a window of size 40x40 does not fit .* multiples of 32, the nearest is 32x32"),
        ({"canvas": {"tiling": "x"}, "width": 72}, "width 72 cannot wrap without a seam .* multiple of 32"),
        ({"canvas": {"panorama": True}, "width": 128, "height": 96}, "128x96 is no whole sphere; .* such as 192x96"),
        ({"variation": {"resize_from": (65, 64)}}, "resize_from 65x64 does not fit the model; .* nearest is 64x64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_do_not_go_together_say_so(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        filled(**given)


def test_what_is_left_out_of_a_group_is_filled_in() -> None:
    assert filled(hires=2, steps=7).hires == Hires(scale=2, steps=7, strength=0.7, upscaler="Latent")
    masked = filled(image=PICTURE, mask=MASK, inpaint=Inpaint(only_masked=True))
    assert (masked.inpaint.fill, masked.inpaint.padding, masked.strength) == ("original", 32, 0.75)
    assert (masked.width, masked.height) == (64, 96)
    around = filled(image=PICTURE, canvas=Canvas(outpaint=(3, 0, 0, 16)))
    assert (around.inpaint.fill, around.strength, around.canvas.outpaint) == ("fill", 1.0, (8, 0, 0, 16))
    assert (around.width, around.height, around.task) == (72, 80, "inpaint")
    assert filled(canvas=Canvas(window=64)).canvas.window_overlap == 32
    sphere = filled(canvas=Canvas(panorama=True))
    assert (sphere.width, sphere.height) == (192, 96)
    drawn = [filled(variation=VariationSeed(strength=0.5)).variation.seed for _ in range(2)]
    assert None not in drawn and drawn[0] != drawn[1]


def test_with_variations_all_pictures_have_one_seed_and_each_its_variation_seed() -> None:
    request = filled(seed=5, count=3, variation=VariationSeed(strength=0.3, seed=100))
    assert [(each.seed, each.variation.seed) for each in map(request.single, range(3))] == [
        (5, 100),
        (5, 101),
        (5, 102),
    ]
    without = filled(seed=5, count=3, variation=VariationSeed(resize_from=(64, 64)))
    assert [without.single(k).seed for k in range(3)] == [5, 6, 7]
