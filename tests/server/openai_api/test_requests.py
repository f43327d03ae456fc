"""Requests in the shapes that clients of OpenAI's images API send, replayed: answers hold what each client reads."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from served import Served, names_of, opened, recorded

EVENTS = ("b64_json", "background", "created_at", "output_format", "quality", "size", "type")


@pytest.mark.parametrize("name", names_of("openai-"))
def test_replayed(server: Served, name: str) -> None:
    asked = recorded(name)
    answer = sent(server, asked)
    assert answer.status_code == asked["status"], answer.text
    if asked["reads"] == ["events"]:
        check_events(answer, "image_edit" if "edits" in asked["path"] else "image_generation")
        return
    found = answer.json()
    for place in asked["reads"]:
        key, _, field = place.replace("[]", "").partition(".")
        for each in found[key] if isinstance(found[key], list) else [found[key]]:
            assert field in each and (each[field] is not None or field == "param"), place
    if "images" in asked:
        check_images(server, asked, found)


def sent(server: Served, asked: dict[str, Any]) -> httpx.Response:
    """The request; where it leaves the size to the server, a small one is asked for, so that the test is short."""
    if "multipart" not in asked:
        body = asked.get("json")
        if body is not None and "prompt" in body and body.get("size", "auto") == "auto":
            body = {**body, "size": "64x64"}
        return server.http.request(asked["method"], asked["path"], headers=asked["headers"], json=body)
    fields = {part["name"]: part["value"] for part in asked["multipart"] if "value" in part}
    files = [
        (part["name"], (part["filename"], base64.b64decode(part["file"]), part["content_type"]))
        for part in asked["multipart"]
        if "file" in part
    ]
    return server.http.post(asked["path"], headers=asked["headers"], data=fields, files=files)


def check_images(server: Served, asked: dict[str, Any], found: dict[str, Any]) -> None:
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
