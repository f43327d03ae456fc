"""The page's 360° view: a panorama from the prompt in one click, from a file, with a depth picture, in Chinese."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from ui.panorama_pictures import directions, eventually, seen

Opened = Callable[..., Any]


def png() -> dict[str, Any]:
    file = io.BytesIO()
    directions().save(file, "PNG")
    return {"name": "sphere.png", "mimeType": "image/png", "buffer": file.getvalue()}


def test_a_prompt_becomes_a_panorama_to_stand_in(opened: Opened, server: Any) -> None:
    page = opened("#/viewer")
    page.locator(".sphere-none").wait_for()
    page.locator(".sphere-maker input").fill("a green meadow under a blue sky")
    page.locator(".sphere-maker button").click()
    page.locator(".sphere canvas").wait_for(timeout=60_000)
    picture = server.get(f"v1/gallery/{page.url.rpartition('/')[2]}")
    assert picture["width"] == 2 * picture["height"]
    assert picture["request"]["canvas"]["panorama"] is True
    before = page.locator(".sphere canvas").screenshot()
    box = page.locator(".sphere canvas").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 140, steps=4)
    page.mouse.up()
    eventually(lambda: page.locator(".sphere canvas").screenshot() != before)
    server.idle()
    page.goto(server.url + "#/paint")
    page.locator('.actions [aria-label="Look around in it"]').click()
    page.locator(".sphere canvas").wait_for()


def test_a_file_is_opened_and_keys_stay_in_the_viewer(opened: Opened) -> None:
    page = opened("#/viewer", locale="zh-CN")
    page.locator(".sphere-files input").first.set_input_files(png())
    canvas = page.locator(".sphere canvas")
    canvas.wait_for()
    assert "全景图" in canvas.get_attribute("aria-label")
    eventually(lambda: seen(page, y=0.5) == "ahead")
    canvas.focus()
    for _ in range(15):
        page.keyboard.press("ArrowRight")
    eventually(lambda: seen(page, y=0.5) == "right")
    page.locator(".sphere-files input").nth(1).set_input_files(png())
    page.locator(".sphere-files button").nth(2).wait_for()
    page.locator(".sphere canvas").wait_for()
