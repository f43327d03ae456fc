"""The rest of the page: gallery, start pictures, languages, themes, phones, keys alone, accessibility, speed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from browsing import drop, mask_canvas, settle, still
from gallery_figures import KEYS, WORDS
from PIL import Image

pytestmark = pytest.mark.timeout(280)
Server = Any
Opened = Callable[..., Any]
VIEWS = ("paint", "gallery", "queue", "grid")
ROW = ".caption .said"


def make(server: Server, prompt: str, **settings: Any) -> dict[str, Any]:
    """A picture made through the API."""
    return dict(server.wait(server.post("v1/jobs", {"prompt": prompt, "steps": 1, **settings})["id"])["pictures"][0])


def png(colour: str = "orange", side: int = 64) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "PNG")
    return file.getvalue()


def violations(page: Any) -> list[str]:
    """What axe-core finds, an element a line."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:160]}" for each in found for node in each["nodes"]]


def test_no_pictures_yet(opened: Opened, server: Server) -> None:
    server.empty()
    page = opened()
    page.locator(".welcome h1").wait_for()
    assert not violations(page)
    assert page.evaluate("document.activeElement") is not None
    page.locator(".examples button").first.click()  # one click makes the first picture
    page.locator(ROW).wait_for()
    assert server.get("v1/gallery?limit=1")["pictures"][0]["prompt"] == page.input_value("#f-prompt")


def test_gallery_search_star_delete_undo(opened: Opened, server: Server) -> None:
    first, second, third = (make(server, f"shelf {name}", seed=1) for name in ("one", "two", "three"))
    page = opened("#/gallery")
    page.fill("#search", "shelf")
    settle(lambda: page.locator(".tile").count() == 3)
    page.locator(f"#tile-{second['id']}").click()
    page.keyboard.press("s")
    settle(lambda: server.get(f"v1/gallery/{second['id']}")["starred"])
    page.keyboard.press("Delete")
    settle(lambda: page.locator(".tile").count() == 2)
    assert page.locator(f"#tile-{first['id']}").get_attribute("aria-selected") == "true"  # its neighbour is chosen
    page.locator(".toast").get_by_role("button", name="Undo").click()
    settle(lambda: page.locator(".tile").count() == 3)
    page.get_by_role("button", name="Starred only").click()
    settle(lambda: page.locator(".tile").count() == 1)
    page.get_by_role("button", name="Starred only").click()
    page.locator(f"#tile-{third['id']}").focus()
    page.locator(f"#tile-{third['id']}").evaluate(  # a key before the click is drawn
        "each => {each.click(); each.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))}"
    )
    settle(lambda: page.locator(f"#tile-{second['id']}").get_attribute("aria-selected") == "true")
    other = opened("#/gallery")  # another device sees what this one does
    other.fill("#search", "shelf")
    settle(lambda: other.locator(".tile").count() == 3)
    page.keyboard.press("Delete")
    settle(lambda: other.locator(".tile").count() == 2)


def test_a_second_device_has_the_settings(opened: Opened, server: Server) -> None:
    page = opened()
    page.click("#settings")
    page.fill("#f-width", "64")
    page.fill("#f-prompt", "a red kite")
    page.keyboard.press("Control+Enter")
    settle(lambda: server.get("v1/settings/page").get("settings", {}).get("prompt") == "a red kite")
    other = opened()
    settle(lambda: other.input_value("#f-prompt") == "a red kite")
    other.click("#settings")
    assert other.input_value("#f-width") == "64"
    other.fill("#f-prompt", "a boat")
    other.keyboard.press("Control+Enter")
    settle(lambda: server.get("v1/settings/page")["settings"]["prompt"] == "a boat")
    page.reload()  # it has settings of its own: nothing changes until its user says so
    offer = page.locator(".toast").get_by_role("button", name="Take them over")
    offer.wait_for()
    assert page.input_value("#f-prompt") == "a red kite"
    offer.click()
    settle(lambda: page.input_value("#f-prompt") == "a boat")
    page.reload()
    settle(lambda: page.input_value("#f-prompt") == "a boat")
    server.idle()


def test_settings_of_elsewhere_are_taken_as_far_as_the_form_can_hold_them(opened: Opened) -> None:
    good = {
        "prompt": "a cat",
        "width": 64,
        "_lock": True,
        "loras": [{"name": "x"}],
        "_start": {"width": 8, "height": 8},
    }
    bad = {
        "loras": "x",
        "controls": {"a": 1},
        "_start": 5,
        "steps": {"a": 1},
        "__proto__": {"x": 1},
        "a b": 1,
        "seed": None,
    }
    kept = opened().evaluate(
        """async (all) => {
        const { usable } = await import(new URL("static/core/devices.js", location.href));
        return all.map(usable); }""",
        [good, bad, {"told_size.original": [512, 512]}, [1], "x", None],
    )
    assert kept == [good, {}, {"micro_conditioning.original": [512, 512]}, None, None, None]


def test_start_picture_outpaint_and_hires(opened: Opened, server: Server) -> None:
    page = opened()
    page.click("#settings")
    page.click("#group-start")
    drop(page, ".drop", png("orange", 128))
    page.locator(".start-picture img").wait_for()
    page.reload()
    page.locator(".start-picture img").wait_for()  # the start picture is back after a reload
    page.fill(".margin.right input", "64")
    page.press(".margin.right input", "Tab")
    page.fill("#f-prompt", "a wider orange")
    page.click("#generate")
    page.locator(f'{ROW}[title="a wider orange"]').wait_for()
    assert server.get("v1/gallery?limit=1")["pictures"][0]["width"] == 128 + 64
    page.get_by_role("button", name="Remove the start picture").first.click()
    page.click("#group-hires")
    page.locator("#g-hires .switch").click()
    page.fill("#f-hires\\.scale", "1.5")
    page.fill("#f-prompt", "a finer orange")
    page.click("#generate")
    page.locator(f'{ROW}[title="a finer orange"]').wait_for()
    assert server.get("v1/gallery?limit=1")["pictures"][0]["width"] == 384


def test_control_shows_its_preprocessed_picture(opened: Opened, server: Server) -> None:
    page = opened()
    server.idle()
    answer = server.get("v1/capabilities") | {"controls": [{"name": "edges", "title": "edges"}]}
    page.route("**/v1/capabilities", lambda route: route.fulfill(json=answer))
    page.reload()
    page.click("#settings")
    page.click("#group-controls")
    page.get_by_role("button", name="Add a control").click()
    drop(page, ".card .drop", png())
    page.locator(".control-pictures img").first.wait_for()
    page.get_by_label("Preprocessor").select_option("canny")
    seen = page.locator(".control-pictures img").nth(1)
    seen.wait_for()
    assert seen.evaluate("each => each.decode().then(() => each.naturalWidth)") == 256
    assert page.locator("figcaption", has_text="What the network sees").count() == 1


def test_enlarge_compare_and_vary(opened: Opened, server: Server) -> None:
    made = make(server, "a pear to enlarge")
    page = opened()
    page.locator(f'.thumb[aria-label="{made["prompt"]}"]').click()
    page.get_by_role("button", name="Vary").click()
    page.get_by_role("button", name="Euler a", exact=True).click()
    settle(lambda: server.get("v1/gallery?limit=1")["pictures"][0]["id"] != made["id"], 20)
    varied = server.get("v1/gallery?limit=1")["pictures"][0]
    assert varied["seed"] == made["seed"]
    assert server.get(f"v1/gallery/{varied['id']}")["request"]["sampler"] == "euler_ancestral"
    page.locator(f'{ROW}[title="a pear to enlarge"]').wait_for()
    page.keyboard.press("c")
    box = page.locator(".compare-box")
    box.wait_for()
    size = box.bounding_box()
    page.mouse.move(size["x"] + size["width"] * 0.5, size["y"] + 20)
    page.mouse.down()
    page.mouse.move(size["x"] + size["width"] * 0.25, size["y"] + 20, steps=3)
    page.mouse.up()
    settle(lambda: 20 <= int(page.get_by_label("Position of the line").input_value()) <= 30)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Enlarge twice").click()
    settle(lambda: server.get("v1/gallery?limit=1")["pictures"][0]["width"] == 512, 40)


HOSTILE = '<img src=x onerror="window.hacked = 1"> <script>window.hacked = 1</script> javascript:alert(1)'


def test_hostile_words_stay_words(opened: Opened, server: Server) -> None:
    made = make(server, HOSTILE)
    page = opened("#/gallery")
    page.locator(f"#tile-{made['id']}").click()
    page.keyboard.press("i")
    page.locator("dialog .facts").wait_for()
    assert "onerror" in page.locator("dialog .facts").inner_text()
    page.keyboard.press("Escape")
    page.goto(server.url + "#/queue")
    page.locator(".job-text b", has_text="onerror").wait_for()
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize(
    ("locale", "scheme", "width"),
    [("en", "light", 1280), ("zh-CN", "dark", 1280), ("en", "dark", 390), ("zh-CN", "light", 390)],
)
def test_views_are_accessible(opened: Opened, server: Server, locale: str, scheme: str, width: int) -> None:
    if not server.get("v1/gallery?limit=1")["pictures"]:
        make(server, "something to see")
    page = opened(locale=locale, color_scheme=scheme, viewport={"width": width, "height": 800}, has_touch=width == 390)
    page.click("#settings")
    for name in ("group-negative", "group-sampling", "group-start", "group-hires", "group-noise"):
        page.click(f"#{name}")
    for view in VIEWS:
        page.goto(f"{server.url}#/{view}")
        page.locator(f"main.{view} h1").first.wait_for(state="attached")
        still(page)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, view
        if locale == "zh-CN":
            assert page.locator(f"main.{view}").evaluate("each => /[\\u4e00-\\u9fff]/.test(each.innerText)"), view
        assert not violations(page), (view, locale, scheme, width)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, dark.strip("rgb()").split(","))) < 384) == (scheme == "dark")


def test_dialogs_are_accessible(opened: Opened, server: Server) -> None:
    page = opened()
    page.locator(".frame.still").wait_for()
    for key in ("?", "i", "c", "e"):
        page.keyboard.press(key)
        page.locator("dialog[open] h2").wait_for()
        still(page)
        assert not violations(page), key
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="detached")


def test_phone_has_the_picture_first_and_the_button_in_reach(opened: Opened) -> None:
    page = opened(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    page.locator(".frame.still").wait_for()
    picture, box = page.locator(".frame.still").bounding_box(), page.locator(".composer").bounding_box()
    button = page.locator("#generate-sticky").bounding_box()
    assert picture["y"] + picture["height"] <= box["y"]
    assert button["y"] + button["height"] <= 780 and button["height"] >= 44
    page.tap("#settings")
    page.locator("#panel").wait_for()
    settle(lambda: page.locator("#panel").bounding_box()["y"] < 100)  # the settings come into sight
    assert page.locator("#generate-sticky").bounding_box() == button
    page.locator("body").press("e")
    canvas = mask_canvas(page)
    where = canvas.bounding_box()
    page.touchscreen.tap(where["x"] + where["width"] / 2, where["y"] + where["height"] / 2)
    settle(page.get_by_role("button", name="Undo").is_enabled)


def test_phone_shows_a_paused_queue_within_its_width(opened: Opened, server: Server) -> None:
    server.post("v1/queue/pause")
    for number in range(2):
        server.post("v1/jobs", {"prompt": f"waits {number}", "steps": 1})
    page = opened("#/queue", viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    page.locator(".bar a.chip").wait_for()
    rows = page.locator("#waiting > li")
    settle(lambda: rows.count() == 2)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert rows.first.bounding_box()["height"] < 90, "all buttons of a job are in one row"
    server.post("v1/queue/clear")


def test_keyboard_alone(opened: Opened, server: Server) -> None:
    """From an empty box to a mask, without a mouse: every step is a key, and the focus can be seen."""
    page = opened()
    page.keyboard.press("p")
    page.keyboard.type("made by keys")
    page.keyboard.press("Control+Enter")
    page.locator(f'{ROW}[title="made by keys"]').wait_for()
    page.locator("#f-prompt").blur()
    page.keyboard.press("e")
    mask_canvas(page).focus()
    for key in ("ArrowRight", "ArrowDown", "Enter", "ArrowDown", "Enter", "[", "Enter"):
        page.keyboard.press(key)
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Enter")
    settle(lambda: server.get("v1/jobs?limit=1")["jobs"][0]["request"].get("mask"), 20)
    server.idle()
    page.keyboard.press("Alt+2")
    page.locator("main.gallery").wait_for()
    page.locator("main.gallery .tile").first.wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.locator('.tile[aria-selected="true"]').wait_for()
    page.keyboard.press("/")
    settle(lambda: page.evaluate("document.activeElement.id") == "search")
    page.keyboard.press("Alt+1")
    page.locator("main.paint").wait_for()
    page.keyboard.press("Tab")
    style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert style != "none"


MANY = 5000


CLICK_AND_END = """() => {
    document.getElementById("tile-many-0").click();  // opens the side, which leaves room for fewer columns
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
}"""
"""At once, before the page can draw what the click changed."""


def test_five_thousand_pictures_and_a_long_prompt(opened: Opened, server: Server) -> None:
    sample = make(server, "one of many")

    def listed(route: Any) -> None:
        query = dict(part.split("=") for part in route.request.url.split("?")[1].split("&"))
        start, limit = int(query.get("before", 0)), int(query["limit"])
        pictures = [sample | {"id": f"many-{i}", "created": 2e9 - i} for i in range(start, min(MANY, start + limit))]
        route.fulfill(
            json={"pictures": pictures, "total": MANY, "next": str(start + limit) if start + limit < MANY else None}
        )

    page = opened("#/gallery")
    page.route("**/v1/gallery?*", listed)
    page.reload()
    page.locator("#tile-many-0").wait_for()
    assert page.locator(".tile").count() < 120
    page.evaluate(CLICK_AND_END)
    page.locator(f"#tile-many-{MANY - 1}").wait_for()
    assert page.locator(".tile").count() < 120
    page.goto(server.url + "#/paint")
    page.fill("#f-prompt", WORDS)
    settle(lambda: "over" in (page.locator(".composer .tokens").get_attribute("class") or ""), 20)
    times = page.evaluate(KEYS)
    assert times and all(each > 0 for each in times), times  # how long they take is measured in docs/page.md


def test_the_page_paints(opened: Opened, server: Server) -> None:
    server.idle()
    page = opened()
    page.reload()
    page.locator("#generate").wait_for()
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    assert paint is not None and paint > 0  # how soon is measured in docs/page.md


def test_shell_opens_without_the_server(opened: Opened, server: Server) -> None:
    page = opened(service_workers="allow")
    page.evaluate("navigator.serviceWorker.ready.then(() => 1)")
    page.reload()
    page.locator("#generate").wait_for()
    settle(lambda: page.evaluate("caches.open('page-1').then((kept) => kept.match('static/app.js')).then(Boolean)"))
    page.context.set_offline(True)
    page.reload()
    page.locator("#generate").wait_for()
    page.context.set_offline(False)
    opened.faults.clear()  # type: ignore[attr-defined]  # calls that fail offline are written to the console
    assert json.loads(server.get("manifest.webmanifest"))["icons"]
