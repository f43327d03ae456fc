"""The widget's Python side, driven through its comm as a notebook's front end does, and its JavaScript in Chromium."""

from __future__ import annotations

import html
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import stable_diffusion
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Images
from stable_diffusion.notebook.form import fields, form
from stable_diffusion.request.metadata import read_metadata
from stable_diffusion.request.request import Request

pytest.importorskip("anywidget")
QUICK = {"model": "embedded-fast", "width": 64, "height": 64, "steps": 2}


class Comm:
    """The kernel's end of a channel to a front end: what Python sends is kept, what a browser sends is handed on."""

    comm_id = "channel"

    def __init__(self) -> None:
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []

    def send(self, data: Any = None, metadata: Any = None, buffers: Any = None) -> None:
        self.sent.append((data, [bytes(each) for each in buffers or ()]))

    def close(self, *_: Any, **__: Any) -> None: ...

    def on_msg(self, handler: Callable[..., Any]) -> None:
        self.handler = handler

    def ask(self, content: dict[str, Any]) -> None:
        """A message such as the browser's `model.send`."""
        self.handler({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})

    def change(self, state: dict[str, Any]) -> None:
        """Traits such as the browser's `model.save_changes`."""
        data = {"method": "update", "state": state, "buffer_paths": []}
        self.handler({"content": {"data": data}, "buffers": []})

    def values(self, name: str) -> list[Any]:
        """All that the browser was told of a trait; bytes come as buffers."""
        found = []
        for data, buffers in self.sent:
            state = data.get("state", {})
            found += [state[name]] if name in state else []
            found += [buffers[i] for i, path in enumerate(data.get("buffer_paths", ())) if path == [name]]
        return found


def connected(widget: Any) -> Comm:
    comm = Comm()
    widget.comm = comm
    comm.on_msg(widget._handle_msg)
    return comm


def test_a_picture_is_made_with_previews_and_comes_into_the_history() -> None:
    widget = stable_diffusion.widget("a red apple", **QUICK)
    comm = connected(widget)
    comm.change({"prompt": "a green apple", "settings": {"width": 64, "height": 64, "steps": 3.0}})
    comm.ask({"type": "generate"})
    assert widget.state != "ready"
    comm.ask({"type": "generate"})  # one at a time
    assert widget.wait(60) and widget.state == "ready" and not widget.fault
    assert len(widget.pictures) == 1 and widget.pictures[0].size == (64, 64)
    assert next(each for each in comm.values("preview") if each).startswith(b"\xff\xd8")
    assert comm.values("picture")[-1].startswith(b"\x89PNG")
    assert max(comm.values("fraction")) == 1 and "working" in comm.values("state")
    (entry,) = widget.history
    text = read_metadata(widget.pictures[0])
    assert entry["prompt"] == text.request.prompt == "a green apple"
    assert entry["seed"] == str(text.request.seed) == widget.seed
    assert entry["settings"]["steps"] == 3 and Image.open(io.BytesIO(entry["thumbnail"])).format == "WEBP"


def test_a_locked_seed_gives_the_same_picture_and_use_brings_it_back() -> None:
    widget = stable_diffusion.widget("a cat", seed=7, **QUICK)
    comm = connected(widget)
    assert widget.seed_locked and widget.seed == "7"
    for _ in range(2):
        comm.ask({"type": "generate"})
        assert widget.wait(60)
    first, second = widget.pictures
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() == stable_diffusion.generate_image("a cat", seed=7, **QUICK).tobytes()
    comm.change({"seed_locked": False, "prompt": "a dog"})
    comm.ask({"type": "generate"})
    assert widget.wait(60) and widget.pictures[2].tobytes() != first.tobytes()
    comm.ask({"type": "use", "id": 0})
    assert (widget.prompt, widget.seed, widget.seed_locked) == ("a cat", "7", True)
    comm.ask({"type": "forget", "id": 0})
    assert [each["id"] for each in widget.history] == [1, 2]
    for content in ({"type": "use", "id": 99}, {"type": "other"}, "text", None):
        comm.handler({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})


def test_cancel_stops_at_the_next_step() -> None:
    widget = stable_diffusion.widget("a cat", **{**QUICK, "steps": 200, "sampler": "euler"})
    comm = connected(widget)
    comm.ask({"type": "generate"})
    end = time.monotonic() + 60
    while not comm.values("fraction")[-1:] or comm.values("fraction")[-1] == 0:
        assert time.monotonic() < end and not widget.fault
        time.sleep(0.02)
    comm.ask({"type": "cancel"})
    assert widget.wait(30) and widget.state == "ready" and not widget.pictures and not widget.fault
    comm.change({"settings": {"width": 64, "height": 64, "steps": 1}})
    comm.ask({"type": "generate"})
    assert widget.wait(60) and len(widget.pictures) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {"steps": 0}}, "steps is 0"),
        ({"settings": {"stepz": 4}}, "steps"),
        ({"settings": {"width": 63}}, "64"),
        ({"seed": "soon", "seed_locked": True}, "'soon'"),
    ],
)
def test_faults_are_sentences(change: dict[str, Any], words: str) -> None:
    widget = stable_diffusion.widget("a cat", model="embedded-fast")
    comm = connected(widget)
    comm.change(change)
    comm.ask({"type": "generate"})
    assert widget.wait(60) and widget.state == "ready" and not widget.pictures
    assert words in widget.fault and "Traceback" not in widget.fault


def test_the_form_comes_from_the_table_of_settings() -> None:
    paths = [each["path"] for each in form()]
    assert len(paths) == len(set(paths)) and {"steps", "sampler", "hires.scale", "inpaint.blur"} <= {*paths}
    assert json.loads(json.dumps(form())) == form()
    assert not {"prompt", "seed", "model", "image", "lora_dir"} & {*paths}
    assert all(each.help for each in fields().values())
    assert stable_diffusion.widget("x", hires={"scale": 1.5}, steps=3).settings == {"steps": 3, "hires.scale": 1.5}
    widget = stable_diffusion.widget("x", image=Image.new("RGB", (64, 64)), strength=0.5)
    assert widget.settings == {"strength": 0.5}  # the picture has no field, and is used all the same
    with pytest.raises(InvalidRequest, match="steps"):
        stable_diffusion.widget("x", steps=0)
    with pytest.raises(InvalidRequest, match="stepz"):
        stable_diffusion.widget("x", stepz=3)  # type: ignore[call-arg]


def test_without_anywidget_a_sentence_says_what_to_install() -> None:
    code = "import sys; sys.modules['anywidget'] = None\nimport stable_diffusion\n"
    code += "try: stable_diffusion.widget()\nexcept stable_diffusion.StableDiffusionError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'the widget needs anywidget: pip install "stable-diffusion[notebook]"'


def test_pictures_and_models_show_themselves_escaped() -> None:
    request = Request("<script>alert(1)</script> & more", seed=5)
    event = Images(images=(Image.new("RGB", (8, 8)),), first=0, requests=(request,), notes=("<b>note</b>",))
    shown = event._repr_html_()
    assert (
        "<script" not in shown and "<b>note" not in shown and html.escape("<script>alert(1)</script> & more") in shown
    )
    assert "data:image/png;base64," in shown and "seed 5" in shown
    model = stable_diffusion.load("embedded-fast")
    assert "<table>" in model._repr_html_() and "embedded" in model._repr_html_()
    model = type(model)(**{**vars(model), "name": "<img src=x onerror=alert(1)>"})
    assert "<img" not in model._repr_html_()


# --- the JavaScript, in a page that does what a notebook's front end does ---------------------------------------------

HOST = """<!doctype html><html lang="en"><meta charset="utf-8"><title>host</title><link rel="stylesheet" href="panel.css">
<body><div id="cell"></div><script type="module">
import widget from "./panel.js";
const state = Object.assign(STATE, {picture: pixels(90), preview: new DataView(new ArrayBuffer(0)), history: [
  {id: 0, prompt: "<b>a cat</b>", seed: "7", settings: {}, thumbnail: pixels(200)}]});
function pixels(size) {
  const canvas = Object.assign(document.createElement("canvas"), {width: size, height: size});
  canvas.getContext("2d").fillRect(0, 0, size, size);
  const data = atob(canvas.toDataURL("image/png").split(",")[1]);
  return new DataView(Uint8Array.from(data, (each) => each.charCodeAt(0)).buffer);
}
const watchers = {};
window.sent = [];
window.model = {
  get: (name) => state[name],
  set(name, value) {
    state[name] = value;
    (watchers[`change:${name}`] || []).forEach((each) => each());
  },
  save_changes() {}, send: (content) => window.sent.push(content),
  on(name, f) { (watchers[name] ||= []).push(f); },
  off(name, f) { watchers[name] = watchers[name].filter((each) => each !== f); },
};
window.left = widget.render({model: window.model, el: document.getElementById("cell")});
</script></body></html>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium; on Debian: apt-get install --no-install-recommends chromium")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


def test_the_widget_in_a_browser(browser: Any, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    folder = Path(stable_diffusion.__file__).parent / "notebook"
    widget = stable_diffusion.widget("a red apple", steps=3)
    names = ("prompt", "settings", "seed", "seed_locked", "form", "model_name", "state", "fraction", "fault", "notes")
    state = json.dumps({name: getattr(widget, name) for name in names})
    (tmp_path / "index.html").write_text(HOST.replace("STATE", state), encoding="utf-8")
    faults: list[str] = []
    page = browser.new_page(viewport={"width": 900, "height": 700})
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.route("http://host/**", lambda route: route.fulfill(path=_file(route.request.url, tmp_path, folder)))
    page.goto("http://host/index.html")
    page.get_by_label("Prompt", exact=True).fill("a blue ball")
    page.get_by_label("Prompt", exact=True).press("Control+Enter")
    page.get_by_role("button", name="Generate").click()
    assert page.evaluate("window.sent") == [{"type": "generate"}, {"type": "generate"}]
    assert page.evaluate("model.get('prompt')") == "a blue ball"
    page.get_by_text("Settings", exact=True).click()
    assert page.get_by_label("Steps", exact=True).input_value() == "3"
    page.get_by_label("Steps", exact=True).fill("5")
    page.keyboard.press("Tab")
    page.get_by_label("Sampler").select_option("euler")
    assert page.evaluate("model.get('settings')") == {"steps": 5, "sampler": "euler"}
    page.evaluate("model.set('state', 'working'); model.set('fraction', 0.5); model.set('fault', '<i>broken</i>')")
    assert page.locator(".sd-fault").inner_text() == "<i>broken</i>"
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Use again: <b>a cat</b>").click()
    assert page.evaluate("window.sent.slice(2)") == [{"type": "cancel"}, {"type": "use", "id": 0}]
    assert page.locator(".sd-stage img").first.evaluate("(each) => each.decode().then(() => each.naturalWidth)") == 90
    rules = {"rules": {name: {"enabled": False} for name in ("page-has-heading-one", "landmark-one-main", "region")}}
    assert axe.Axe().run(page, options=rules).violations_count == 0
    page.evaluate("model.set('fault', ''); window.left(); model.set('prompt', 'later')")
    assert page.get_by_label("Prompt", exact=True).input_value() == "a blue ball"
    assert not faults
    page.close()


def _file(url: str, page: Path, scripts: Path) -> Path:
    name = url.rpartition("/")[2]
    return (page if name == "index.html" else scripts) / name
