"""One real server and one browser for the tests of the page; each test has a fresh browser context.

A page fixture fails its test on an error in the console, on a violated policy, and on a request to another host.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START = 90.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that drives a browser may be repeated once: on a busy machine a browser can stand still for seconds."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


class Server:
    """A running `stable-diffusion serve`, and calls of its API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if answer.headers["Content-Type"].startswith("application/json") else body

    def post(self, path: str, data: Any = None, method: str = "POST") -> Any:
        body = json.dumps({} if data is None else data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def wait(self, job: str, seconds: float = 120) -> dict[str, Any]:
        """The job when it has ended."""
        until = time.monotonic() + seconds
        while (found := self.get(f"v1/jobs/{job}"))["state"] in ("queued", "running"):
            assert time.monotonic() < until, found
            time.sleep(0.05)
        return dict(found)

    def idle(self, seconds: float = 120) -> None:
        """Waits until nothing runs or waits."""
        until = time.monotonic() + seconds
        while any((state := self.get("v1/queue"))[name] for name in ("queued", "running")):
            assert time.monotonic() < until, state
            time.sleep(0.05)

    def empty(self) -> None:
        """No picture is left, and nothing runs or waits."""
        self.post("v1/queue/resume")
        self.idle()
        while found := self.get("v1/gallery?limit=100")["pictures"]:
            self.post("v1/gallery/delete", {"pictures": [each["id"] for each in found]})


def _lora(path: Path) -> None:
    """A file that is listed as a LoRA, with trigger words, and fits no model."""
    header = {
        "__metadata__": {"ss_tag_frequency": json.dumps({"set": {"wavy sketch": 9, "ink": 4}})},
        "lora_unet_x.lora_up.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
        "lora_unet_x.lora_down.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [4, 8]},
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests: embedded-fast, a LoRA in its folder, a data folder of its own."""
    for name in ("fastapi", "uvicorn", "sqlalchemy"):
        pytest.importorskip(name)
    data, loras = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("loras")
    _lora(loras / "wavy-lines.safetensors")
    Image.new("RGB", (96, 96), "teal").save(loras / "wavy-lines.png")
    log = data / "log.txt"
    command = [sys.executable, "-m", "stable_diffusion", "serve", "--port", "0", "--data", str(data)]
    command += ["--model", "embedded-fast", "--loras", str(loras)]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=data, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    try:
        yield Server(_address(process, log))
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + START
    while time.monotonic() < until:
        found = re.search(r"listening at (http://\S+)", log.read_text())
        if found and _answers(found[1].rstrip("/") + "/healthz"):
            return found[1].rstrip("/") + "/"
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"the server did not start: {log.read_text()}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(autouse=True)
def _empty_again(request: pytest.FixtureRequest) -> None:
    """A test that is repeated finds nothing of its first attempt."""
    found = request.getfixturevalue("server") if "server" in request.fixturenames else None
    if isinstance(found, Server) and getattr(request.node, "execution_count", 1) > 1:
        found.empty()


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Any]]:
    """Starts the system's Chromium with more arguments; without it the tests of the page are skipped, and say so.

    Playwright keeps an event loop running in its thread, so it ends with each file: others of the process need theirs.
    """
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium; on Debian: apt-get install --no-install-recommends chromium fonts-noto-cjk")
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    found: list[Any] = []
    with sync_api.sync_playwright() as playwright:

        def start(*arguments: str) -> Any:
            found.append(playwright.chromium.launch(executable_path=CHROMIUM, args=[*root, *arguments]))
            return found[-1]

        yield start
        for each in found:
            each.close()


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Any]) -> Any:
    """Chromium as it is."""
    return launch()


@pytest.fixture
def opened(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens a page in a context of its own: `opened("#/gallery", locale="zh-CN", ...)`; `context=` shares one."""
    faults: list[str] = []
    contexts: list[Any] = []
    server.post("v1/settings/page", {}, "PUT")  # each test begins as the first device

    def open_page(address: str = "", context: Any = None, script: str = "", **settings: Any) -> Any:
        if context is None:
            settings = {"viewport": {"width": 1280, "height": 800}, "service_workers": "block", **settings}
            context = browser.new_context(**settings)
            context.set_default_timeout(60_000)
            contexts.append(context)
        page = context.new_page()
        page.add_init_script(script)
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("console", lambda line: faults.append(f"console: {line.text}") if line.type == "error" else None)
        page.on("request", lambda call: None if _ours(call.url, server.url) else faults.append(f"asked {call.url}"))
        page.goto(server.url + address)
        page.locator("main.view").wait_for()
        return page

    open_page.faults = faults  # type: ignore[attr-defined]
    yield open_page
    for context in contexts:
        context.close()
    server.post("v1/queue/resume")
    assert not [fault for fault in faults if "Failed to load resource" not in fault]


def _ours(url: str, base: str) -> bool:
    return url.startswith((base, "blob:" + base.rstrip("/"), "data:"))
