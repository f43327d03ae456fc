"""A1111's X/Y/Z plot: its arguments in the forms that clients write, its sheets, and what it refuses."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from served import Served, base64_text, opened, picture

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.server.a1111.bodies import Img2Img, Txt2Img
from stable_diffusion.server.a1111.plot.arguments import cells, plot_of
from stable_diffusion.server.a1111.plot.axes import axes_of

SMALL = {"prompt": "a red kite", "seed": 7, "steps": 1, "width": 64, "height": 64}
PLOT = {"script_name": "x/y/z plot"}


def place(label: str, *, has_image: bool = False) -> int:
    return [axis.label for axis in axes_of(has_image=has_image)].index(label)


def made(server: Served, args: list[Any], route: str = "txt2img", **changes: Any) -> tuple[list[Any], dict[str, Any]]:
    """The pictures of a plot, and its `info`."""
    answer = server.post(f"/sdapi/v1/{route}", {**SMALL, **PLOT, "script_args": args, **changes})
    assert answer.status_code == 200, answer.text
    return [opened(each) for each in answer.json()["images"]], json.loads(answer.json()["info"])


def bodies(args: list[Any], kind: type = Txt2Img, **changes: Any) -> list[Any]:
    body = kind(**{**SMALL, **changes}, script_name="X/Y/Z Plot", script_args=args)
    return list(cells(plot_of(body), body))


def test_numbers_of_axes_are_those_of_a1111() -> None:
    """The first of txt2img are in every version; the numbers of later ones are what script-info lists."""
    labels = [axis.label for axis in axes_of(has_image=False)]
    first = ("Nothing", "Seed", "Var. seed", "Var. strength", "Steps", "Hires steps", "CFG Scale", "Prompt S/R")
    assert tuple(labels[:10]) == (*first, "Prompt order", "Sampler")
    assert [axis.label for axis in axes_of(has_image=True)][5:7] == ["CFG Scale", "Image CFG Scale"]


def test_a_plot_as_webuiapi_writes_it(server: Served) -> None:
    """Switches as text, the menu's values empty, nothing after the margin."""
    webuiapi = pytest.importorskip("webuiapi")
    api = webuiapi.WebUIApi(host="127.0.0.1", port=urlsplit(server.address).port)
    args = [4, "1,2", "", 9, "Euler a, LMS", "", 0, "", "", "True", "True", "False", "False", 4]
    result = api.txt2img(**SMALL, script_name="X/Y/Z Plot", script_args=args)
    sheet, *alone = result.images
    assert [each.size for each in alone] == [(64, 64)] * 4 and sheet.width > 128 and sheet.height > 128
    texts = [each.info["parameters"] for each in alone]
    wanted = [(1, "Euler a"), (2, "Euler a"), (1, "LMS"), (2, "LMS")]
    assert [f"Steps: {steps}, Sampler: {name}," in text for (steps, name), text in zip(wanted, texts, strict=True)] == [
        True
    ] * 4
    assert sheet.info["parameters"].endswith(
        'Script: X/Y/Z plot, X Type: Steps, X Values: "1, 2", Y Type: Sampler, Y Values: "Euler a, LMS"'
    )
    assert result.info["index_of_first_image"] == 1 and result.info["all_seeds"] == [7] * 5


def test_cells_are_the_pictures_of_plain_requests(server: Served) -> None:
    sheets, info = made(server, [place("Seed"), "3-4", [], 0, "", [], 0, "", [], False, True, False, False, 0, False])
    sheet, *alone = sheets
    for seed, cell in zip((3, 4), alone, strict=True):
        answer = server.post("/sdapi/v1/txt2img", {**SMALL, "seed": seed}).json()["images"]
        assert opened(answer[0]).tobytes() == cell.tobytes()
    white = [np.asarray(each.convert("RGBA")) for each in alone]
    over = [(each[..., :3] * (each[..., 3:] / 255.0) + 255 * (1 - each[..., 3:] / 255.0)) for each in white]
    assert np.abs(np.asarray(sheet) - np.concatenate(over, 1)).max() <= 1
    assert info["infotexts"][0].count("Script: X/Y/Z plot") == 1 and "Script" not in info["infotexts"][1]


def test_three_axes_and_the_sheets_of_the_third(server: Served) -> None:
    args = ["seed", "1,2", "", "cfg scale", "1,2", "", "Prompt S/R", "kite,boat", "", True, False, True, False]
    sheets, info = made(server, args)
    assert len(sheets) == 3 and info["index_of_first_image"] == 3
    assert sheets[0].width > sheets[1].width * 2 - 20 and sheets[1].size == sheets[2].size
    assert sheets[1].tobytes() != sheets[2].tobytes()


def test_img2img(server: Served) -> None:
    denoising = place("Denoising", has_image=True)
    args = [denoising, "0.3-0.9 [2]", "", 0, "", "", 0, "", "", "True", "True"]
    (_, low, high), _ = made(server, args, "img2img", init_images=[base64_text(picture())], steps=2)
    start = np.asarray(picture(), dtype=int)
    near, far = (np.abs(np.asarray(each.convert("RGB"), dtype=int) - start).mean() for each in (low, high))
    assert near < far


def test_bodies_of_cells() -> None:
    five, *others = bodies([1, "5, ,-1", "", 0])
    assert five.seed == 5 and all(each.seed >= 0 for each in others) and len(others) == 2
    random = bodies([place("Steps"), "1-3", ""], seed=-1)
    assert len({each.seed for each in random}) == 1 and random[0].seed >= 0, "one random seed for all of them"
    free = bodies([place("Steps"), "1-3", "", 0, "", "", 0, "", "", True, False, False, True], seed=-1)
    assert {each.seed for each in free} == {-1}
    varied = [4, "1,2", "", 6, "1,2", "", 0, "", "", True, False, False, False, True, True, False, 0, True]
    assert [each.seed for each in bodies(varied)] == [7, 8, 9, 10]
    sized = bodies([place("Size"), "64x128, 128X64", ""])
    assert [(each.width, each.height) for each in sized] == [(64, 128), (128, 64)]
    ordered = bodies([place("Prompt order"), "red,kite", ""])
    assert [each.prompt for each in ordered] == ["a red kite", "a kite red"]
    chosen = bodies([place("Checkpoint name"), "ignored", ["a, b.safetensors", "c"]])
    assert [each.override_settings["sd_model_checkpoint"] for each in chosen] == ["a, b.safetensors", "c"]
    guided = bodies([place("Image CFG Scale", has_image=True), "1,1.5", ""], Img2Img)
    assert [each.image_cfg_scale for each in guided] == [1.0, 1.5] and guided[0].script_name is None
    assert bodies([], subseed=3) == bodies([0, "", "", 0, "", "", 0, "", ""], subseed=3)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([99, "1", ""], "x_type is 99; expected the number of an axis from 0 to"),
        (["Sampel", "Euler", ""], "did you mean 'Sampler'"),
        ([{}, "1", ""], "x_type is {}"),
        (["VAE", "None", ""], "'VAE', which changes nothing here"),
        (["Steps", "many", ""], "the axis 'Steps' has the value 'many'; expected a whole number"),
        (["CFG Scale", "nan", ""], "expected a number"),
        (["Steps", "", ""], "x_values of 'Steps' has 0 values; expected 1 to 64"),
        (["Steps", {"a": 1}, ""], "expected text with commas"),
        (["Seed", "1-9999", ""], "expected 1 to 64"),
        (["Prompt order", "a,b,c,d,e", ""], "expected 1 to 64"),
        (["Prompt S/R", "boat,ship", ""], "'boat' is in neither prompt"),
        (["Prompt order", "boat,red", ""], "'boat' is not in the prompt"),
        (["Prompt S/R", '"",ship', ""], "'' is in neither prompt"),
        (["Prompt order", "red,", ""], "'' is not in the prompt"),
        (["Size", "64", ""], "expected width x height"),
        (["Seed", "1-60", "", "Steps", "1-60", ""], "the plot has 3600 pictures; expected at most 400"),
        ([0, "", "", 0, "", "", 0, "", "", "perhaps"], "expected true or false"),
        ([0, "", "", 0, "", "", 0, "", "", True, True, True, True, 9999], "margin_size is 9999"),
        ([0] * 20, "script_args has 20 values"),
    ],
)
def test_arguments_that_cannot_be_used(args: list[Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(words)):
        bodies(args)


def test_refused_before_the_first_cell_is_made(server: Served) -> None:
    before = len(server.service.queue.jobs())
    wrong = [
        ({"script_args": ["Sampler", "Euler, Eulr", ""]}, 400, "did you mean 'euler'"),
        ({"script_args": ["Size", "64x64,63x64", ""]}, 400, "width is 63"),
        (
            {"script_args": ["Seed", "1-60", "", "Steps", "145-150", ""], "width": 1024, "height": 1024},
            400,
            "megapixel",
        ),
        ({"script_args": "Steps"}, 422, "script_args"),
        ({"script_name": "loopback"}, 422, "x/y/z plot"),
    ]
    for changes, status, words in wrong:
        answer = server.post("/sdapi/v1/txt2img", {**SMALL, **PLOT, **changes})
        assert answer.status_code == status and words in answer.json()["detail"], answer.text
    assert len(server.service.queue.jobs()) == before


def test_script_info_names_the_axes(server: Served) -> None:
    assert server.get("/sdapi/v1/scripts").json()["img2img"] == ["controlnet", "soft inpainting", "x/y/z plot"]
    found = [each for each in server.get("/sdapi/v1/script-info").json() if each["name"] == "x/y/z plot"]
    assert [each["is_img2img"] for each in found] == [False, True] and not found[0]["is_alwayson"]
    assert found[0]["args"][0]["choices"][4] == "Steps" and len(found[0]["args"]) == 18
