"""Upscalers of the server: as jobs of /v1, in A1111's extras and lists, and for hires fix. Never a path."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served import Served, base64_text, opened, picture, served
from server_helpers import SMALL, done, sentence
from upscaler_files import written

from stable_diffusion.upscaling.network import load_upscaler
from stable_diffusion.upscaling.picture import enlarged_image, last_value


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("upscale")
    (folder / "upscalers").mkdir()
    written(folder / "upscalers")
    with served(folder, upscalers=(folder / "upscalers",)) as found:
        yield found


def expected(server: Served, size: tuple[int, int]) -> Image.Image:
    """The picture as the network alone enlarges it."""
    path = server.service.library.upscaler_path("4x-small")
    return last_value(enlarged_image(picture(), load_upscaler(path), size))


def upscale(server: Served, **body: Any) -> dict[str, Any]:
    answer = server.post("/v1/upscale", {"image": base64_text(picture()), **body})
    assert answer.status_code == 202, answer.text
    return done(server.http, answer.json()["id"])


def file_of(server: Served, job: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(server.get(job["pictures"][0]["url"]).content))


def test_a_job_of_v1(server: Served) -> None:
    job = upscale(server, upscaler="4X-small", scale=2)
    assert job["state"] == "done" and job["kind"] == "upscale", job
    made = file_of(server, job)
    assert np.array_equal(np.array(made), np.array(expected(server, (128, 128))))
    assert made.info["parameters"].endswith("Postprocess upscaler: 4x-small")
    assert file_of(server, upscale(server, width=100, height=50, crop=True)).size == (100, 50)


def test_a_picture_of_the_gallery_keeps_its_settings(server: Served) -> None:
    made = done(server.http, server.post("/v1/jobs", SMALL).json()["id"])
    job = upscale(server, image=f"picture:{made['pictures'][0]['id']}", upscaler="4x-small")
    assert "a red apple" in file_of(server, job).info["parameters"]


def test_hires_by_a_file_of_the_list(server: Served) -> None:
    hires = {"scale": 2, "strength": 0.5, "upscaler": "4x-small"}
    job = done(server.http, server.post("/v1/jobs", {**SMALL, "hires": hires}).json()["id"])
    assert job["state"] == "done", job["error"]
    assert job["request"]["hires"]["upscaler"] == "4x-small"
    made = file_of(server, job)
    assert made.size == (128, 128) and "Hires upscaler: 4x-small" in made.info["parameters"]
    body = {**SMALL, "cfg_scale": 3, "enable_hr": True, "hr_scale": 2, "hr_upscaler": "4x-small"}
    answer = server.post("/sdapi/v1/txt2img", body)
    assert answer.status_code == 200, answer.text
    assert opened(answer.json()["images"][0]).size == (128, 128)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"upscaler": "4x-smal"}, "did you mean '4x-small'"),
        ({"upscaler": "/etc/passwd"}, "is a path"),
        ({"scale": 0}, "scale"),
        ({"scale": 2, "width": 5, "height": 5}, "say it twice"),
        ({"width": 5}, "belong together"),
        ({"width": 16000, "height": 16000}, "expected at most"),
        ({"image": "http://example.org/a.png"}, "nothing is fetched"),
    ],
)
def test_bad_input(server: Served, body: dict[str, Any], words: str) -> None:
    answer = server.post("/v1/upscale", {"image": base64_text(picture()), **body})
    assert answer.status_code in (400, 422) and words in sentence(answer)


def test_hires_takes_no_path(server: Served) -> None:
    path = str(server.service.library.upscaler_path("4x-small"))
    answer = server.post("/v1/jobs", {**SMALL, "hires": {"upscaler": path}})
    assert answer.status_code == 400 and "is a path" in sentence(answer)


def test_lists(server: Served) -> None:
    found = {each["name"]: each for each in server.get("/v1/capabilities").json()["upscalers"]}
    assert found["4x-small"] == {"name": "4x-small", "latent": False, "picture": True, "scale": 4}
    rows = {each["name"]: each for each in server.get("/sdapi/v1/upscalers").json()}
    assert rows["4x-small"]["scale"] == 4 and rows["4x-small"]["model_name"] == "4x-small"
    assert rows["4x-small"]["model_path"] is None


def test_extras_of_a1111(server: Served) -> None:
    body = {"image": base64_text(picture()), "upscaling_resize": 2, "upscaler_1": "4x-small"}
    made = opened(server.post("/sdapi/v1/extra-single-image", body).json()["image"])
    assert np.array_equal(np.array(made), np.array(expected(server, (128, 128))))
    mixed = {**body, "upscaler_1": "Nearest", "upscaler_2": "4x-small", "extras_upscaler_2_visibility": 0.5}
    half = opened(server.post("/sdapi/v1/extra-single-image", mixed).json()["image"])
    other = np.array(picture().resize((128, 128), Image.Resampling.NEAREST), float)
    assert np.abs((other + np.array(made)) / 2 - np.array(half)).max() <= 1
    batch = {"imageList": [{"data": body["image"], "name": "a"}] * 2, "upscaler_1": "4x-small", "upscaling_resize": 2}
    images = server.post("/sdapi/v1/extra-batch-images", batch).json()["images"]
    assert len(images) == 2 and base64.b64decode(images[0]) == base64.b64decode(images[1])
    assert opened(images[0]).tobytes() == made.tobytes()


def test_folder_is_private(server: Served) -> None:
    whole = server.get("/v1/capabilities").text + server.get("/sdapi/v1/upscalers").text
    assert str(Path(server.service.settings.upscalers[0])) not in whole
