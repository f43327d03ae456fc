"""The page in a real browser against a real server: what people do first, and that nothing is lost."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from browsing import drop, painted, settle
from PIL import Image, PngImagePlugin

pytestmark = pytest.mark.timeout(280)
Server = Any
Opened = Callable[..., Any]
ROW = ".caption .said"


def generate(page: Any, prompt: str) -> None:
    page.fill("#f-prompt", prompt)
    page.click("#generate")
    page.locator(f'{ROW}[title="{prompt}"]').wait_for()


def test_picture_forms_live(opened: Opened, server: Server) -> None:
    page = opened()
    page.click("#settings")
    page.select_option("#f-model", "embedded")
    page.fill("#f-prompt", "a red apple, live")
    page.keyboard.press("Control+Enter")
    page.locator(".frame.live img").wait_for()  # a preview while it is made
    assert page.locator(".frame.live img").get_attribute("src").startswith("data:image/jpeg")
    page.locator(f'{ROW}[title="a red apple, live"]').wait_for()
    image = page.locator(".frame.still img")
    assert image.evaluate("each => each.decode().then(() => each.naturalWidth)") == 256
    assert page.locator(".strip .thumb").count() >= 1
    assert server.get("v1/gallery?limit=1")["pictures"][0]["prompt"] == "a red apple, live"


def test_reload_in_the_middle_and_a_second_tab(opened: Opened, server: Server) -> None:
    page = opened()
    page.fill("#f-prompt", "a boat that survives")
    page.click("#settings")
    page.select_option("#f-model", "embedded")
    page.click("#group-sampling")
    page.fill("#f-steps", "60")
    page.fill("#f-count", "2")
    page.click("#generate")
    page.locator(".frame.live").wait_for()
    page.reload()
    page.locator(".frame.live img").wait_for()  # the running job and its preview are back
    assert page.input_value("#f-prompt") == "a boat that survives"
    assert page.input_value("#f-steps") == "60"
    other = opened()  # another device: nothing of the first one's storage
    other.locator(".frame.live img").wait_for()
    other.keyboard.press("Escape")  # and it can stop the job
    page.locator(".frame.live").wait_for(state="detached")
    server.idle()
    tab = opened(context=page.context)
    assert tab.input_value("#f-prompt") == "a boat that survives"
    page.fill("#f-prompt", "words of the first tab")
    settle(lambda: tab.input_value("#f-prompt") == "words of the first tab")


# Answers of the server that the test gives itself, in the order it wants: `answers[i](body)` answers the i-th question.
HELD = """
const answers = [], real = window.fetch;
const json = (body) => new Response(JSON.stringify(body), { headers: { "Content-Type": "application/json" } });
const later = () => new Promise((give) => answers.push((body) => give(json(body))));
window.fetch = (url, ...rest) => String(url).includes(ADDRESS) ? later() : real(url, ...rest);
"""
COUNTED = """
window.lists = 0;
const plain = window.fetch;
window.fetch = (url, ...rest) => {
  const answer = plain(url, ...rest);
  if (String(url).includes("v1/gallery?limit=60")) answer.then(() => { window.lists += 1; });
  return answer;
};
"""

BOTH_LISTS = "async () => { while (lists < 2) await new Promise((done) => setTimeout(done, 20)); }"


def test_an_answer_that_was_overtaken_changes_nothing(opened: Opened) -> None:
    running = opened().evaluate(
        "async () => {"
        + HELD.replace("ADDRESS", '"v1/jobs"')
        + """const { loadJobs, running } = await import(new URL("static/core/server.js", location.href));
        const state = { paused: false, queued: 0, running: 0 }, old = { id: "old", state: "running", request: {} };
        const both = [loadJobs(), loadJobs()];
        answers[1]({ jobs: [], ...state });
        await both[1];
        answers[0]({ jobs: [old], ...state });
        await both[0];
        window.fetch = real;
        return running.value.length; }"""
    )
    assert running == 0


def test_what_comes_while_a_list_is_loaded_stays(opened: Opened, server: Server) -> None:
    server.idle()
    page = opened(script=COUNTED)
    page.evaluate(BOTH_LISTS)  # at the start, and when the stream of events is open: no more by itself
    shown = page.evaluate(
        "async () => {"
        + HELD.replace("ADDRESS", '"v1/gallery?"')
        + """const { recent } = await import(new URL("static/core/gallery.js", location.href));
        const rest = { prompt: "", width: 8, height: 8, url: "data:,", thumbnail: "data:,", fresh: true };
        const picture = (id, created) => ({ id, created, ...rest });
        const loading = recent.reload();
        recent.put(picture("new", 3));
        recent.take("gone");
        answers[0]({ pictures: [picture("gone", 2), picture("old", 1)], total: 2, next: null });
        await loading;
        window.fetch = real;
        return recent.items.value.map((each) => each.id); }"""
    )
    assert shown == ["new", "old"]


def test_inpaint_keeps_the_other_pixels(opened: Opened, server: Server) -> None:
    page = opened()
    generate(page, "a blue car, kept")
    before = server.get("v1/gallery?limit=1")["pictures"][0]
    page.locator("body").press("e")
    canvas = page.locator("#mask-canvas")
    canvas.wait_for()
    page.get_by_role("button", name="Undo").wait_for()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    settle(lambda: painted(page) > 0.01)  # the picture is drawn
    page.mouse.move(x - 30, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 20, steps=5)
    page.mouse.up()
    undo = page.get_by_role("button", name="Undo")
    settle(undo.is_enabled)
    undo.click()
    settle(lambda: not undo.is_enabled())
    page.get_by_role("button", name="Redo").click()
    page.click("#mask-go")
    settle(lambda: server.get("v1/gallery?limit=1")["pictures"][0]["id"] != before["id"], 30)
    server.idle()
    after = server.get("v1/gallery?limit=1")["pictures"][0]
    request = server.get(f"v1/gallery/{after['id']}")["request"]
    mask = np.asarray(_picture(server, f"v1/inputs/{request['mask'].split(':')[1]}").convert("L"))
    old, new = (
        np.asarray(_picture(server, f"v1/gallery/{each['id']}/file").convert("RGBA")) for each in (before, after)
    )
    kept = mask == 0
    assert 0.5 < kept.mean() < 0.999
    assert np.array_equal(old[kept], new[kept])
    assert not np.array_equal(old[~kept], new[~kept])


def _picture(server: Server, path: str) -> Image.Image:
    return Image.open(io.BytesIO(server.get(path)))


def test_use_again_is_complete(opened: Opened, server: Server) -> None:
    wanted = {"prompt": "a green tree, again", "negative_prompt": "fog", "steps": 3, "guidance": 1.5, "seed": 2**60 + 3,
              "sampler": "euler", "schedule": "karras", "width": 192, "height": 256, "clip_skip": 2,
              "noise": {"eta": 0.5}}  # fmt: skip
    first = server.wait(server.post("v1/jobs", wanted)["id"])["pictures"][0]
    page = opened("#/gallery")
    page.locator(f"#tile-{first['id']}").dblclick()
    page.locator("body").press("u")
    settle(lambda: page.input_value("#f-prompt") == "a green tree, again")
    page.locator("body").press("Control+Enter")
    settle(lambda: server.get("v1/gallery?limit=1")["pictures"][0]["id"] != first["id"], 30)
    server.idle()
    second = server.get("v1/gallery?limit=1")["pictures"][0]
    assert second["seed_text"] == str(2**60 + 3)
    assert server.get(f"v1/gallery/{second['id']}/file") == server.get(f"v1/gallery/{first['id']}/file")


A1111 = (
    "a castle on a hill\nNegative prompt: blurry\nSteps: 7, Sampler: Euler a, Schedule type: Karras, CFG scale: 6.5, "
    "Seed: 123, Size: 256x192, Version: v1.10.1"
)
COMFY = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 77, "steps": 9, "cfg": 5.5, "sampler_name": "euler",
          "scheduler": "normal", "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0],
          "latent_image": ["5", 0]}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 256, "height": 256, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lake of ComfyUI", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
}  # fmt: skip
INVOKE = {"app_version": "5.4.0", "generation_mode": "txt2img", "positive_prompt": "a bridge of InvokeAI",
          "negative_prompt": "", "width": 256, "height": 256, "seed": 55, "cfg_scale": 4.5, "steps": 11,
          "scheduler": "euler"}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "text", "prompt", "steps"),
    [
        ("parameters", A1111, "a castle on a hill", "7"),
        ("prompt", json.dumps(COMFY), "a lake of ComfyUI", "9"),
        ("invokeai_metadata", json.dumps(INVOKE), "a bridge of InvokeAI", "11"),
    ],
    ids=["A1111", "ComfyUI", "InvokeAI"],
)
def test_dropped_picture_shows_what_would_change(opened: Opened, key: str, text: str, prompt: str, steps: str) -> None:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text(key, text)
    Image.new("RGB", (256, 256), "navy").save(file, "PNG", pnginfo=info)
    page = opened()
    page.fill("#f-prompt", "what was there")
    drop(page, "body", file.getvalue())
    table = page.locator("table.diff")
    table.wait_for()
    assert prompt in table.inner_text() and "what was there" in table.inner_text()
    assert page.input_value("#f-prompt") == "what was there"  # nothing is changed before it is applied
    page.click("#take")
    assert page.input_value("#f-prompt") == prompt
    page.click("#settings")
    page.click("#group-sampling")
    assert page.input_value("#f-steps") == steps


def test_queue_is_paused_reordered_cancelled_and_retried(opened: Opened, server: Server) -> None:
    page = opened("#/queue")
    page.click("#pause")
    settle(lambda: server.get("v1/queue")["paused"])
    jobs = [server.post("v1/jobs", {"prompt": f"queued {name}", "steps": 2})["id"] for name in "abc"]
    rows = page.locator("#waiting .job")
    settle(lambda: rows.count() == 3)
    rows.nth(2).drag_to(rows.nth(0))  # by dragging
    settle(lambda: "queued c" in rows.nth(0).inner_text())
    rows.nth(1).get_by_role("button", name="Later").click()  # and by button
    settle(lambda: "queued b" in rows.nth(1).inner_text())
    rows.nth(2).get_by_role("button", name="Cancel").click()
    settle(lambda: rows.count() == 2)
    assert server.get(f"v1/jobs/{jobs[0]}")["state"] == "cancelled"
    page.click("#pause")
    server.idle()
    finished = [server.get(f"v1/jobs/{job}") for job in (jobs[2], jobs[1])]
    assert [job["state"] for job in finished] == ["done", "done"]
    assert finished[0]["started"] < finished[1]["started"]
    page.locator(".job.cancelled").first.get_by_role("button", name="Retry").click()
    settle(lambda: server.get(f"v1/jobs/{jobs[0]}")["state"] == "done", 30)


def test_grid_fills_cell_by_cell_and_survives_a_reload(opened: Opened, server: Server) -> None:
    page = opened("#/grid")
    page.fill("#grid-prompt", "a yellow cup of the grid")
    page.select_option("#axis-x", "steps")
    page.fill("#values-x", "1, 2")
    page.select_option("#axis-y", "seed")
    page.fill("#values-y", "5-6")
    page.click("#grid-start")
    page.locator("table.xy .cell img").first.wait_for()
    settle(page.locator("#grid-start").is_enabled)  # every cell is sent
    server.post("v1/queue/pause")

    def late(route: Any) -> None:
        """The rest is made before the page hears of events."""
        server.post("v1/queue/resume")
        server.idle()
        route.continue_()

    page.route("**/v1/events*", late)
    page.reload()
    settle(lambda: page.locator("table.xy button.cell img").count() == 4, 40)
    assert [cell.inner_text() for cell in page.locator("table.xy thead th").all()] == ["Steps 1", "Steps 2"]
    found = server.get("v1/gallery?search=yellow+cup+of+the+grid")["pictures"]
    assert sorted(each["seed"] for each in found) == [5, 5, 6, 6]


def test_errors_stand_at_their_field(opened: Opened, server: Server) -> None:
    page = opened()
    page.click("#settings")
    page.fill("#f-width", "100")
    page.fill("#f-prompt", "wrong size")
    page.click("#generate")
    sentence = page.locator(".composer .fault").inner_text()
    assert "100" in sentence and "multiples of" in sentence
    page.fill("#f-width", "")
    page.click("#generate")
    page.locator(f'{ROW}[title="wrong size"]').wait_for()
    assert page.locator(".composer .fault").count() == 0


def test_words_weights_tokens_and_loras(opened: Opened) -> None:
    page = opened()
    box = page.locator("#f-prompt")
    box.fill("a cat, red hat, night")
    box.evaluate("each => each.setSelectionRange(9, 9)")
    box.press("Control+ArrowUp")
    box.press("Control+ArrowUp")
    assert box.input_value() == "a cat, (red hat:1.2), night"
    box.press("Control+ArrowDown")
    box.press("Control+ArrowDown")
    assert box.input_value() == "a cat, red hat, night"
    settle(lambda: page.locator(".composer .tokens").inner_text().startswith("7 /"))
    box.press("End")
    box.press_sequentially(", wav")
    page.get_by_role("option", name="wavy-lines").wait_for()
    box.press("Tab")
    assert box.input_value().endswith("<lora:wavy-lines:1>")
    page.get_by_role("button", name="LoRAs").first.click()
    dialog = page.locator("dialog")
    dialog.get_by_role("button", name="wavy sketch").click()  # its trigger word
    dialog.locator(".lora-main img").wait_for()
    assert dialog.locator(".lora-main img").evaluate("each => each.decode().then(() => each.naturalWidth)") > 0
    dialog.locator(".lora-main").click()
    page.keyboard.press("Escape")
    assert box.input_value().endswith("wavy sketch")
    with page.expect_request(lambda call: call.url.endswith("/v1/jobs") and call.method == "POST") as sent:
        page.click("#generate")
    assert sent.value.post_data_json["loras"] == [{"name": "wavy-lines", "strength": 1}]
    page.locator(".composer .fault").wait_for()  # it fits no model, and the server's sentence says so
