"""Requests in the shapes that clients of A1111 send, replayed against a real server: answers hold what they read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from served import Served, names_of, opened, recorded


@pytest.mark.parametrize("name", names_of("a1111-"))
def test_replayed(server: Served, name: str) -> None:
    asked = recorded(name)
    body = asked.get("json")
    if body == "{{options}}":
        body = server.get("/sdapi/v1/options").json()
    answer = server.http.request(asked["method"], asked["path"], headers=asked.get("headers"), json=body)
    assert answer.status_code == asked["status"], answer.text
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
        assert all("Seed: " in image.info["parameters"] for image in images)


def check_info(asked: dict[str, Any], info: dict[str, Any]) -> None:
    """The types that the strictest client demands: no null where it reads text, a number or a boolean."""
    assert set(asked.get("info", ())) <= set(info)
    count = asked.get("images", 1)
    for name in ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds", "infotexts"):
        assert len(info[name]) == count, name
    kinds = {
        str: (
            "prompt",
            "negative_prompt",
            "sampler_name",
            "sd_model_name",
            "sd_model_hash",
            "job_timestamp",
            "version",
        ),
        int: ("seed", "subseed", "width", "height", "batch_size", "seed_resize_from_w", "seed_resize_from_h"),
        bool: ("restore_faces", "is_using_inpainting_conditioning"),
    }
    for kind, names in kinds.items():
        for name in names:
            assert type(info[name]) is kind, name
    assert type(info["clip_skip"]) is int and info["index_of_first_image"] == 0
    wanted = asked["json"].get("seed", -1)
    assert info["seed"] == wanted if wanted >= 0 else info["seed"] >= 0
    assert info["all_seeds"] == list(range(info["seed"], info["seed"] + count))


def test_a_lora_of_the_list_changes_the_picture(server: Served) -> None:
    body = recorded("a1111-sdcpp-txt2img")["json"]
    with_it = server.post("/sdapi/v1/txt2img", body).json()
    tagged = server.post("/sdapi/v1/txt2img", {**body, "lora": [], "prompt": "a badger <lora:ink:0.8>"}).json()
    without = server.post("/sdapi/v1/txt2img", {**body, "lora": [], "prompt": "a badger"}).json()
    assert with_it["images"] == tagged["images"] != without["images"]
    assert "stable-diffusion.cpp" in json.loads(with_it["info"])["notes"][0]
