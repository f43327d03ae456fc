# ruff: noqa: E501  (the hostile page is text)
"""A hostile page of another origin in a real browser: it tries everything, and nothing happens. The page of the server
itself works, so that the guard is no wall."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator

import pytest
from server_helpers import client, make, port_of

from stable_diffusion.server.listen import Listening

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

PAGE = """<!doctype html><title>Evil</title><body><script>
const base = "http://HOST:PORT";
async function tried(start) { try { return await start(); } catch (error) { return "blocked"; } }
async function simple() { return (await fetch(base + "/v1/queue/pause", {method: "POST", mode: "no-cors"})).type; }
async function text() {
  return (await fetch(base + "/v1/jobs", {method: "POST", mode: "no-cors", headers: {"Content-Type": "text/plain"},
    body: JSON.stringify({prompt: "evil"})})).type; }
async function json() {
  return (await fetch(base + "/v1/jobs", {method: "POST", headers: {"Content-Type": "application/json"},
    body: JSON.stringify({prompt: "evil"})})).status; }
async function multipart() {
  const form = new FormData(); form.append("image", new Blob(["x"]), "x.png"); form.append("prompt", "evil");
  return (await fetch(base + "/v1/images/edits", {method: "POST", mode: "no-cors", body: form})).type; }
async function read() { return await (await fetch(base + "/v1/jobs")).text(); }
function picture(path) { return new Promise((done) => {
  const image = new Image(); image.onload = () => done("loaded"); image.onerror = () => done("blocked"); image.src = base + path; }); }
function socket() { return new Promise((done) => {
  const open = new WebSocket("ws://HOST:PORT/v1/live");
  open.onopen = () => done("open"); open.onerror = () => done("blocked"); }); }
function events() { return new Promise((done) => {
  const open = new EventSource(base + "/v1/events"); open.onopen = () => done("open"); open.onerror = () => { open.close(); done("blocked"); }; }); }
function frame() { return new Promise((done) => {
  const made = document.createElement("iframe"); made.sandbox = "allow-scripts allow-forms";
  made.srcdoc = `<form method=post action="${base}/v1/queue/pause"></form><script>
    fetch("${base}/v1/queue/pause", {method: "POST", mode: "no-cors"}).finally(() => document.forms[0].submit())<\\/script>`;
  document.body.append(made); setTimeout(() => done("tried"), 700); }); }
function form() { return new Promise((done) => {
  const target = document.createElement("iframe"); target.name = "target"; document.body.append(target);
  const made = document.createElement("form"); made.method = "post"; made.target = "target"; made.action = base + "/v1/queue/pause";
  document.body.append(made); made.submit(); setTimeout(() => done("tried"), 700); }); }
window.attack = async (file) => ({simple: await tried(simple), text: await tried(text), json: await tried(json),
  multipart: await tried(multipart), read: await tried(read), picture: await picture(file), socket: await socket(),
  events: await events(), frame: await frame(), form: await form()});
</script></body>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as engine:
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP rebind.example 127.0.0.1, MAP evil.example 127.0.0.1"]
        found = engine.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        found.close()


@pytest.fixture
def evil(server: Listening) -> Iterator[str]:
    """The address of a page on another port, and so of another origin."""
    body = PAGE.replace("HOST", "127.0.0.1").replace("PORT", str(port_of(server))).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://evil.example:{found.server_address[1]}/"
        found.shutdown()


def test_nothing_that_a_hostile_page_tries_happens(browser: sync_api.Browser, server: Listening, evil: str) -> None:
    with client(server) as asked:
        file = make(asked)["pictures"][0]["url"]
        before = len(asked.get("/v1/jobs").json()["jobs"])
        page = browser.new_page()
        page.goto(evil)
        found = page.evaluate(f"window.attack('{file}')")
        assert found["json"] == found["read"] == found["picture"] == found["socket"] == found["events"] == "blocked"
        assert not asked.get("/v1/queue").json()["paused"]
        assert len(asked.get("/v1/jobs").json()["jobs"]) == before
        page.close()


def test_a_rebound_name_is_refused(browser: sync_api.Browser, server: Listening) -> None:
    page = browser.new_page()
    answer = page.goto(f"http://rebind.example:{port_of(server)}/v1/jobs")
    assert answer is not None and answer.status == 403
    page.close()


def test_own_pages_load_nothing_from_elsewhere(browser: sync_api.Browser, server: Listening) -> None:
    page, asked, faults = browser.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    base = f"http://127.0.0.1:{port_of(server)}"
    page.goto(f"{base}/docs")
    page.locator("summary", has_text="/v1/jobs/{job_id}/events").first.wait_for(timeout=60_000)
    page.locator("#find").fill("gallery")
    assert page.locator("summary:visible", has_text="/v1/queue").count() == 0
    assert all(url.startswith(base) for url in asked) and not faults
    opened = page.evaluate(
        "new Promise((done) => { const s = new WebSocket(location.origin.replace('http', 'ws') + '/v1/live');"
        " s.onopen = () => { s.close(); done('open') }; s.onerror = () => done('blocked') })"
    )
    assert opened == "open"
    page.close()


def test_a_link_from_another_site_opens_the_page(browser: sync_api.Browser, server: Listening, evil: str) -> None:
    page = browser.new_page()
    page.goto(evil)
    page.evaluate(f"location.href = 'http://127.0.0.1:{port_of(server)}/'")
    page.wait_for_url(f"http://127.0.0.1:{port_of(server)}/")
    assert "Stable Diffusion" in page.title()
    page.close()
