"""The live view in Chromium with a fake camera: frames come back, settings change in flight, stills are kept, AR."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import settle
from fake_camera import FLAGS, pixels, red_place, write_ball
from PIL import Image, ImageDraw

pytestmark = pytest.mark.timeout(280)
Server = Any
Opened = Callable[..., Any]
VENDOR = Path(__file__).parent / "vendor"
FIGURES = ".live-figures"
SMALL = """if (!localStorage.getItem('sd.ui'))
  localStorage.setItem('sd.ui', JSON.stringify({'live.size': 128, 'live.steps': 2}));"""
ROOM = """
window.xr = new IWER.XRDevice(IWER.metaQuest3);
xr.installRuntime({forceInstall: true});
xr.installSEM(class {
  trackedPlanes = new Set(); trackedMeshes = new Set(); environmentCanvas = document.createElement("canvas");
  render() {}
  computeHitTestResults(m) {  // the floor, a metre and a half below the eyes
    const [x, y, z, dx, dy, dz] = [m[12], m[13], m[14], -m[8], -m[9], -m[10]];
    if (dy > -0.01) return [];
    const far = -y / dy;
    return [new Float32Array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, x + far * dx, 0, z + far * dz, 1])];
  }
});
xr.position.set(0, 1.5, 0);
"""


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Chromium whose camera shows a ball that moves."""
    clip = write_ball(tmp_path_factory.mktemp("camera") / "ball.y4m")
    return launch(*FLAGS, f"--use-file-for-fake-video-capture={clip}")


def still(colour: str = "red") -> dict[str, Any]:
    image = Image.new("RGB", (160, 128), "#778899")
    ImageDraw.Draw(image).ellipse((48, 32, 112, 96), fill=colour)
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"name": "still.png", "mimeType": "image/png", "buffer": file.getvalue()}


def answers(page: Any) -> int:
    """How many pictures came so far."""
    page.wait_for_timeout(20)  # lets events in
    return len(page.sockets)


@pytest.fixture
def live(opened: Opened) -> Opened:
    """Opens the live view with a small picture of two steps; `page.sockets` are the pictures that came back."""

    def open_live(prompt: str = "a red apple", **settings: Any) -> Any:
        settings["script"] = settings.get("script", "") + SMALL
        page = opened("", **settings)
        page.sockets = []
        page.on("websocket", lambda found: found.on("framereceived", lambda data: _count(page, data)))
        page.goto(page.url.partition("#")[0] + "#/live")
        page.locator("#live-prompt").fill(prompt)
        return page

    return open_live


def _count(page: Any, data: Any) -> None:
    if isinstance(data, bytes):
        page.sockets.append(len(data))


def open_picture(page: Any, **more: Any) -> None:
    page.locator(".live-square input[type=file]").set_input_files(still(**more))
    settle(lambda: answers(page) > 0, 30)


def settled(page: Any, more_than: int = 0) -> np.ndarray[Any, Any]:
    """The canvas when more than so many pictures, and then no further one for a while, have come."""
    settle(lambda: answers(page) > more_than, 30)
    count = -1
    while count != answers(page):
        count = answers(page)
        page.wait_for_timeout(700)
    return pixels(page)


def test_the_picture_follows_the_camera(live: Opened) -> None:
    page = live("a red ball")
    page.get_by_role("button", name="Use the camera").click()
    page.locator(FIGURES).wait_for(timeout=60_000)
    places: list[float] = []

    def both_sides() -> bool:
        found = red_place(pixels(page))
        places.extend([] if found is None else [found])
        return bool(places) and min(places) < 0.45 and max(places) > 0.55

    settle(both_sides, 40)
    figures = page.locator(FIGURES)
    assert float(figures.get_attribute("data-rate")) > 0.3 and float(figures.get_attribute("data-latency")) > 1
    assert float(figures.get_attribute("data-server")) <= float(figures.get_attribute("data-latency")) + 50
    page.get_by_role("button", name="Pause").click()
    page.locator(".chip", has_text="Paused").wait_for()
    page.wait_for_timeout(500)
    before = answers(page)
    page.wait_for_timeout(500)
    assert answers(page) == before
    page.get_by_role("button", name="Go on").click()
    settle(lambda: answers(page) > before, 20)
    page.evaluate(
        """() => { Object.defineProperty(document, "hidden", {value: true, configurable: true});
        document.dispatchEvent(new Event("visibilitychange")); }"""
    )
    page.locator(".chip", has_text="hidden").wait_for()


def test_settings_change_in_flight_and_a_still_is_kept(live: Opened, server: Server) -> None:
    page = live("a red apple")
    open_picture(page)
    first = settled(page)
    count = answers(page)
    page.wait_for_timeout(600)
    assert answers(page) == count  # a still picture with the same settings is made once
    page.locator("#live-strength").fill("0.9")
    page.locator("#live-prompt").fill("a blue ball in the snow")
    second = settled(page, count)
    assert np.abs(first.astype(int) - second).mean() > 5
    count = answers(page)
    page.get_by_role("button", name="Another seed").click()
    assert np.abs(second.astype(int) - settled(page, count)).mean() > 1
    count = answers(page)
    page.get_by_role("group", name="Size").get_by_role("button", name="192").click()
    assert settled(page, count).shape == (192, 192, 4)
    page.get_by_role("button", name="Keep").click()
    page.locator(".toast", has_text="gallery").get_by_role("button", name="Show").click()
    page.locator(".tile[aria-selected=true]").wait_for()
    kept = server.get("v1/gallery?limit=1")["pictures"][0]
    request = server.get(f"v1/gallery/{kept['id']}")["request"]
    assert kept["prompt"] == "a blue ball in the snow" and kept["width"] == 192
    assert request["strength"] == 0.9 and request["steps"] == 2 and request["image"].startswith("sha256:")
    page.go_back()
    page.locator("#live-prompt").wait_for()
    assert page.locator("#live-strength").input_value() == "0.9"


def test_a_sticker_lies_over_the_camera(live: Opened) -> None:
    page = live("a yellow star")
    page.get_by_role("button", name="Sticker over it").click()
    page.get_by_role("button", name="Use the camera").click()
    settle(lambda: answers(page) > 0, 30)
    page.wait_for_timeout(400)

    def yellow() -> float:
        red, green, blue = (pixels(page)[..., index].astype(int) for index in range(3))
        strong = (np.minimum(red, green) - blue) > 60
        return float(np.nonzero(strong)[1].mean() / 512) if strong.mean() > 0.02 else -1

    settle(lambda: 0.4 < yellow() < 0.6, 10)
    count = answers(page)
    before = pixels(page)
    settle(lambda: bool((pixels(page) != before).any()), 10)
    assert answers(page) == count  # the camera goes on, and the sticker is made once
    canvas = page.locator(".live-view canvas")
    canvas.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    settle(lambda: yellow() > 0.65, 10)
    page.get_by_role("button", name="Change the picture").click()
    settle(lambda: pixels(page).shape == (128, 128, 4), 20)
    assert pixels(page)[..., 3].min() == 255


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("NotAllowedError", "lock or camera symbol"),
        ("NotFoundError", "no camera"),
        ("NotReadableError", "Another program"),
    ],
)
def test_a_missing_camera_is_explained(fault: str, words: str, live: Opened) -> None:
    refuse = f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('no', '{fault}'); }};"
    page = live(script=refuse)
    page.get_by_role("button", name="Use the camera").click()
    alert = page.locator(".live-fault")
    alert.wait_for()
    assert words in alert.inner_text()
    alert.get_by_role("button", name="Try again").click()
    assert words in alert.inner_text()
    open_picture(page)  # the rest works without one
    assert page.locator(".live-fault").count() == 0


def test_a_denied_camera_is_explained_by_a_browser_that_denies(launch: Callable[..., Any], server: Server) -> None:
    browser = launch("--use-fake-device-for-media-stream", "--deny-permission-prompts")
    page = browser.new_page(service_workers="block")
    page.goto(server.url + "#/live")
    page.get_by_role("button", name="Use the camera").click()
    page.locator(".live-fault", has_text="lock or camera symbol").wait_for()
    page.add_init_script("Object.defineProperty(window, 'isSecureContext', {value: false})")
    page.reload()
    page.get_by_role("button", name="Use the camera").click()
    page.locator(".live-fault", has_text="--tls-cert").wait_for()
    assert "--tls-cert" in page.locator(".live-room").inner_text()
    browser.close()


def test_a_picture_stands_in_the_room(live: Opened, server: Server) -> None:
    page = live("a yellow star", script=(VENDOR / "iwer.js").read_text(encoding="utf-8") + ";" + ROOM)
    page.get_by_role("button", name="Place it in your room").click()
    status = page.locator(".live-overlay p")
    settle(lambda: "Tap" in status.inner_text(), 40)
    page.evaluate("xr.controllers.right.position.set(0, 1.4, 0)")
    page.evaluate("xr.controllers.right.quaternion.set(-0.2588, 0, 0, 0.9659)")  # 30 degrees down: 2.4 m ahead
    page.wait_for_timeout(600)
    before = yellow_share(page)
    for place in (1, 2):
        page.evaluate("xr.controllers.right.updateButtonValue('trigger', 1)")
        page.wait_for_timeout(400)
        page.evaluate("xr.controllers.right.updateButtonValue('trigger', 0)")
        settle(lambda place=place: f"Placed: {place}" in status.inner_text(), 15)
    settle(lambda: yellow_share(page) > before + 0.001, 10)
    page.locator(".live-overlay button", has_text="Remove the last").evaluate("(each) => each.click()")
    settle(lambda: "Placed: 1" in status.inner_text())
    page.locator(".live-overlay button", has_text="Leave").evaluate("(each) => each.click()")
    page.locator(".live-overlay").wait_for(state="hidden")
    made = server.get("v1/gallery?limit=1")["pictures"][0]
    assert server.get(f"v1/gallery/{made['id']}")["request"]["background"] == "transparent"


def yellow_share(page: Any) -> float:
    image = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    return float(((np.minimum(image[..., 0], image[..., 1]) - image[..., 2]) > 60).mean())


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_view_is_accessible_and_fits_a_phone(locale: str, scheme: str, live: Opened) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = live("", locale=locale, color_scheme=scheme, viewport={"width": 390, "height": 844})
    chinese = "使用摄像头" in page.locator(".live-view").inner_text()
    assert chinese == (locale == "zh-CN")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    open_picture(page)
    source, result = (page.locator(".live-pane").nth(index).bounding_box() for index in (0, 1))
    assert result["y"] > source["y"] + source["height"] - 1  # one above the other
    found = axe.Axe().run(page).response["violations"]
    assert not [f"{each['id']}: {node['html'][:120]}" for each in found for node in each["nodes"]]
