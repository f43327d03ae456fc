"""The 360° viewer in Chromium: drag, keys, wheel, motion, VR, stereo pairs, Chinese, accessibility, from the disk."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from stable_diffusion.ui.local_page import PageServer
from stable_diffusion.ui.viewer_page import Panorama, Picture, exported_page
from ui.panorama_pictures import VENDOR, directions, eventually, is_harmless, seen

Opened = Callable[..., Any]


def shown(image: Image.Image | None = None, **more: Any) -> Panorama:
    return Panorama("sphere.png", encoded(directions() if image is None else image), **more)


def encoded(image: Image.Image) -> Picture:
    file = io.BytesIO()
    image.save(file, "PNG")
    return Picture(file.getvalue(), "image/png")


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    """Opens a panorama's page at 127.0.0.1; afterwards nothing may have gone wrong in it or been asked elsewhere."""
    servers: list[PageServer] = []
    contexts: list[Any] = []
    faults: list[str] = []

    def open_page(panorama: Panorama, script: str = "", **options: Any) -> Any:
        server = PageServer(panorama)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        page = new_page(browser, contexts, faults, server.address, script, **options)
        page.goto(server.address)
        page.locator(".pv-bar").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    for server in servers:
        server.shutdown()
        server.server_close()
    assert not faults


def new_page(browser: Any, contexts: list[Any], faults: list[str], home: str, script: str, **options: Any) -> Any:
    context = browser.new_context(viewport={"width": 480, "height": 320}, **options)
    contexts.append(context)
    page = context.new_page()
    page.add_init_script(script)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: None if is_harmless(message.text) else faults.append(message.text))
    page.on("request", lambda request: None if request.url.startswith((home, "data:")) else faults.append(request.url))
    return page


def drag(page: Any, x: int, y: int) -> None:
    page.mouse.move(240, 120)
    page.mouse.down()
    page.mouse.move(240 + x, 120 + y, steps=4)
    page.mouse.up()


def look(page: Any) -> dict[str, float]:
    found: dict[str, float] = page.evaluate("viewer.then(v => ({...v.look, renders: v.renders()}))")
    return found


def test_dragging_keys_and_wheel_turn_the_picture(opened: Opened) -> None:
    page = opened(shown())
    eventually(lambda: seen(page) == "ahead")
    for _ in range(2):
        drag(page, -200, 0)
    eventually(lambda: seen(page) == "right")
    drag(page, 0, 200)
    drag(page, 0, 200)
    eventually(lambda: seen(page) == "up")
    page.locator("canvas").focus()
    page.keyboard.press("Home")
    eventually(lambda: seen(page) == "ahead")
    for _ in range(15):
        page.keyboard.press("ArrowLeft")
    eventually(lambda: seen(page) == "left")
    for _ in range(15):
        page.keyboard.press("ArrowDown")
    eventually(lambda: seen(page) == "down")
    page.keyboard.press("Home")
    eventually(lambda: (seen(page, x=0.1), seen(page, x=0.9)) == ("ahead", "ahead"))
    page.mouse.move(240, 120)
    page.mouse.wheel(0, 1000)
    eventually(lambda: look(page)["field"] > 95)
    eventually(lambda: (seen(page, x=0.1), seen(page, x=0.9)) == ("left", "right"))


def test_nothing_is_drawn_while_nothing_moves(opened: Opened) -> None:
    page = opened(shown())
    page.wait_for_timeout(300)
    before = look(page)["renders"]
    page.wait_for_timeout(500)
    assert look(page)["renders"] == before
    page.locator('[data-action="zoom-in"]').click()
    eventually(lambda: look(page)["renders"] > before)


def test_an_emulated_headset_turns_and_sees_two_eyes(opened: Opened) -> None:
    script = (VENDOR / "iwer.js").read_text(encoding="utf-8")
    script += ";window.xr = new IWER.XRDevice(IWER.metaQuest3); xr.installRuntime({forceInstall: true});"
    script += "const ask = navigator.xr.requestSession.bind(navigator.xr); window.views = 0;"
    script += """navigator.xr.requestSession = async (...given) => {
      const session = await ask(...given);
      const frame = session.requestAnimationFrame.bind(session);
      const space = await session.requestReferenceSpace("local");
      session.requestAnimationFrame = (call) => frame((time, seen) => {
        window.views = seen.getViewerPose(space)?.views.length ?? 0;
        call(time, seen);
      });
      return session;
    };"""
    page = opened(shown(), script)
    page.locator('[data-action="vr"]').click()
    eventually(lambda: bool(page.evaluate("window.views === 2")))
    eventually(lambda: seen(page, y=0.5) == "ahead")
    page.evaluate("xr.quaternion.set(0, Math.SQRT1_2, 0, Math.SQRT1_2)")
    eventually(lambda: seen(page, y=0.5) == "left")
    page.evaluate("viewer.then(v => v.enterVR())")
    eventually(lambda: page.locator('[data-action="vr"]').get_attribute("aria-pressed") == "false")
    page.locator('[data-action="ahead"]').click()
    eventually(lambda: seen(page) == "ahead")


def test_the_device_s_motion_turns_the_picture(opened: Opened) -> None:
    page = opened(shown())
    motion = page.context.new_cdp_session(page)

    def hold(alpha: float, beta: float) -> None:
        motion.send("DeviceOrientation.setDeviceOrientationOverride", {"alpha": alpha, "beta": beta, "gamma": 0})

    hold(0, 100)
    page.locator('[data-action="motion"]').click()
    eventually(lambda: abs(look(page)["pitch"] - 10) < 1)
    hold(90, 90)
    eventually(lambda: seen(page) == "left")
    hold(90, 170)
    eventually(lambda: seen(page) == "up")
    page.locator('[data-action="motion"]').click()
    hold(0, 90)
    page.wait_for_timeout(200)
    assert seen(page) == "up"


def halves(page: Any) -> tuple[Image.Image, Image.Image]:
    image = Image.open(io.BytesIO(page.screenshot(clip={"x": 0, "y": 0, "width": 480, "height": 240}))).convert("RGB")
    return image.crop((0, 0, 240, 240)), image.crop((240, 0, 480, 240))


def difference(pair: tuple[Image.Image, Image.Image]) -> float:
    counts = ImageChops.difference(*pair).convert("L").histogram()
    return sum(counts[32:]) / sum(counts)


def test_depth_gives_each_eye_its_own_picture(opened: Opened) -> None:
    stripes = Image.new("RGB", (512, 256))
    for x in range(0, 512, 16):
        stripes.paste((255, 255, 255), (x, 0, x + 8, 256))
    near = Image.new("L", (512, 256), 0)
    near.paste(255, (220, 90, 292, 166))
    flat, deep = opened(shown(stripes)), opened(shown(stripes, depth=encoded(near)))
    for page in (flat, deep):
        page.locator('[data-action="pair"]').click()
        page.mouse.move(5, 5)
        page.wait_for_timeout(300)
    assert difference(halves(flat)) < 0.01
    assert difference(halves(deep)) > 0.02


def test_a_stereo_pair_shows_each_eye_its_half(opened: Opened) -> None:
    both = Image.new("RGB", (128, 128), (255, 0, 0))
    both.paste((0, 0, 255), (0, 64, 128, 128))
    page = opened(shown(both, stereo="top-bottom"))
    eventually(lambda: seen(page) == "ahead")
    page.locator('[data-action="pair"]').click()
    eventually(lambda: (seen(page, x=0.25), seen(page, x=0.75)) == ("ahead", "behind"))


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_the_viewer_speaks_the_language_and_is_accessible(locale: str, opened: Opened) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(shown(), locale=locale)
    said = page.locator("canvas").get_attribute("aria-label")
    assert ("全景图" in said) == (locale == "zh-CN") and ("arrow keys" in said) == (locale != "zh-CN")
    result = axe.run(page, options={"rules": {"page-has-heading-one": {"enabled": False}}})
    assert result.violations_count == 0, result.generate_report()
    names = page.locator("button:visible").evaluate_all("all => all.map((each) => each.getAttribute('aria-label'))")
    assert len(names) == len(set(names)) >= 5
    page.keyboard.press("Tab")
    for _ in names:
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Tab")


def test_a_picture_that_cannot_be_read_is_said(opened: Opened, browser: Any) -> None:
    page = browser.new_page()
    server = PageServer(Panorama("broken", Picture(b"no picture", "image/png")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page.goto(server.address)
    eventually(lambda: page.locator(".pv-note").inner_text() == "The picture could not be read.")
    page.close()
    server.shutdown()
    server.server_close()


def test_without_webgl_the_picture_is_shown_flat(opened: Opened, browser: Any) -> None:
    page = browser.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    server = PageServer(shown())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page.goto(server.address)
    eventually(lambda: "no WebGL" in page.locator(".pv-note").inner_text())
    assert page.locator(".pv > img").get_attribute("alt")
    page.close()
    server.shutdown()
    server.server_close()


def test_one_file_works_from_the_disk(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "sphere.html"
    path.write_text(exported_page(shown()), encoding="utf-8")
    contexts: list[Any] = []
    faults: list[str] = []
    page = new_page(browser, contexts, faults, path.as_uri(), "")
    page.goto(path.as_uri())
    eventually(lambda: seen(page) == "ahead")
    for _ in range(2):
        drag(page, -200, 0)
    eventually(lambda: seen(page) == "right")
    contexts[0].close()
    assert not faults
