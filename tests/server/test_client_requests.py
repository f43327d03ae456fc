"""Every recorded request of every client, replayed against one real server that has what the requests name.

Each answer is checked for what its client reads (`reads` of the file): keys, types, pictures with the text of their own
request, and that a browser of another origin may read it where the request comes from one that was let in.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from client_folders import write_folders
from served import Served, names_of, opened, recorded, served

from stable_diffusion.pipeline.models import StableDiffusion

BROWSER = "http://localhost:5001"
"""The origin of a client that runs in a browser."""
EVENTS = ("b64_json", "background", "created_at", "output_format", "quality", "size", "type")
KINDS: dict[type, tuple[str, ...]] = {
    str: ("prompt", "negative_prompt", "sampler_name", "sd_model_name", "sd_model_hash", "job_timestamp", "version"),
    int: ("seed", "subseed", "width", "height", "batch_size", "seed_resize_from_w", "seed_resize_from_h", "clip_skip"),
    bool: ("restore_faces", "is_using_inpainting_conditioning"),
}
"""The types that the strictest client demands: no null where it reads text, a number or a boolean."""


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory, tiny_model: StableDiffusion) -> Iterator[Served]:
    """The server, with folders, styles and the origin that the requests need."""
    folder = tmp_path_factory.mktemp("everything")
    with served(folder, allow_origins=(BROWSER,), **write_folders(folder, tiny_model)) as found:
        yield found


@pytest.mark.parametrize("name", names_of(""))
def test_replayed(everything: Served, name: str) -> None:
    asked = recorded(name)
    answer = sent(everything, asked)
    assert answer.status_code == asked["status"], answer.text
    if origin := (asked.get("headers") or {}).get("origin"):
        assert answer.headers["access-control-allow-origin"] == origin
    check = check_openai if name.startswith("openai-") else check_a1111
    check(everything, asked, answer)


def sent(server: Served, asked: dict[str, Any]) -> httpx.Response:
    """The request; where it leaves the size to OpenAI's API, a small one is asked for, so that the test is short."""
    if "multipart" not in asked:
        body = asked.get("json")
        if body == "{{options}}":
            body = server.get("/sdapi/v1/options").json()
        elif "/images/" in asked["path"] and body.get("size", "auto") == "auto":
            body = {**body, "size": "64x64"}
        return server.http.request(asked["method"], asked["path"], headers=asked.get("headers"), json=body)
    fields = {part["name"]: part["value"] for part in asked["multipart"] if "value" in part}
    files = [
        (part["name"], (part["filename"], base64.b64decode(part["file"]), part["content_type"]))
        for part in asked["multipart"]
        if "file" in part
    ]
    return server.http.post(asked["path"], headers=asked["headers"], data=fields, files=files)


def check_a1111(server: Served, asked: dict[str, Any], answer: httpx.Response) -> None:
    found = answer.json()
    assert set(asked["reads"]) <= set(found or {})
    if "images" in asked["reads"] or "image" in asked["reads"]:
        check_pictures(asked, found)
    if "info" in asked["reads"] and "txt2img" in asked["path"]:
        check_info(asked, json.loads(found["info"]))


def check_pictures(asked: dict[str, Any], found: dict[str, Any]) -> None:
    images = [opened(text) for text in found.get("images") or [found["image"]]]
    assert len(images) == asked.get("images", 1)
    assert {image.format for image in images} == {"PNG"}
    assert {image.size for image in images} == {tuple(asked.get("size", (64, 64)))}
    if asked["path"].endswith("2img"):
        prompt = asked["json"]["prompt"].partition("<")[0].strip()
        assert all(prompt in image.info["parameters"] and "Seed: " in image.info["parameters"] for image in images)


def check_info(asked: dict[str, Any], info: dict[str, Any]) -> None:
    assert set(asked.get("info", ())) <= set(info)
    count = asked.get("images", 1)
    for name in ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds", "infotexts"):
        assert len(info[name]) == count, name
    for kind, names in KINDS.items():
        for name in names:
            assert type(info[name]) is kind, name
    assert info["index_of_first_image"] == 0
    wanted = asked["json"].get("seed", -1)
    assert info["seed"] == wanted if wanted >= 0 else info["seed"] >= 0
    assert info["all_seeds"] == list(range(info["seed"], info["seed"] + count))


def check_openai(server: Served, asked: dict[str, Any], answer: httpx.Response) -> None:
    if asked["reads"] == ["events"]:
        check_events(answer, "image_edit" if "edits" in asked["path"] else "image_generation")
        return
    found = answer.json()
    for place in asked["reads"]:
        key, _, field = place.replace("[]", "").partition(".")
        for each in found[key] if isinstance(found[key], list) else [found[key]]:
            assert field in each and (each[field] is not None or field == "param"), place
    if "images" in asked:
        check_images(asked, found)


def check_images(asked: dict[str, Any], found: dict[str, Any]) -> None:
    assert len(found["data"]) == asked["images"] and isinstance(found["created"], int)
    assert found["quality"] in ("low", "medium", "high") and found["background"] in ("opaque", "transparent")
    assert found["size"] == "64x64" and found["output_format"] in ("png", "webp")
    usage = found["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    for each in found["data"]:
        assert not set(asked.get("without", ())) & set(each)
        if "b64_json" in each:
            image = opened(each["b64_json"])
            assert image.size == (64, 64) and image.format == found["output_format"].upper()
            assert image.format != "PNG" or asked.get("json", {}).get("prompt", "") in image.info["parameters"]
        if "url" in each:
            shown = httpx.get(each["url"])
            assert shown.status_code == 200 and shown.headers["content-type"] == f"image/{found['output_format']}"
            assert "b64_json" not in each or shown.content == base64.b64decode(each["b64_json"])


def check_events(answer: httpx.Response, kind: str) -> None:
    """Every line of data is JSON, and its type is the event's name; the last one is the picture with its usage."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    names = [line.removeprefix("event: ") for line in answer.text.split("\n") if line.startswith("event:")]
    data = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n") if line.startswith("data:")]
    assert [each["type"] for each in data] == names and names[-1] == f"{kind}.completed"
    assert f"{kind}.partial_image" in names
    for each in data:
        assert set(EVENTS) <= set(each)
        assert opened(each["b64_json"]).format == each["output_format"].upper()
    assert data[-1]["usage"]["output_tokens"] > 0 and data[-1]["size"] == "64x64"
    assert [each["partial_image_index"] for each in data[:-1]] == list(range(len(data) - 1))
