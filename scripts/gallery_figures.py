"""Measures the page with a large gallery: a real store of so many pictures, the system's Chromium, no call intercepted.

    python -m scripts.gallery_figures --pictures 5000

writes the pictures and their rows into a folder that is removed afterwards, starts `stable-diffusion serve` on it and
prints one JSON object: seconds to fill the store, milliseconds of key strokes, scrolling, searching and jumps.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

WORDS = ", ".join(f"word{i % 97} of many" for i in range(660))  # about 2,000 tokens
THINGS = ("castle", "kite", "harbour", "fox", "lighthouse", "market", "bridge")
KEYS = """() => new Promise((done) => {
    const box = document.getElementById("f-prompt"), times = [];
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
    const key = (left) => {
        const start = performance.now();
        document.execCommand("insertText", false, "x");
        requestAnimationFrame(() => {
            const channel = new MessageChannel();  // after the frame that shows it
            channel.port1.onmessage = () => {
                times.push(performance.now() - start);
                if (left) setTimeout(() => key(left - 1), 30);
                else done(times);
            };
            channel.port2.postMessage(0);
        });
    };
    key(29);
})"""
SCROLL = """() => new Promise((done) => {
    const box = document.querySelector(".tiles"), frames = [];
    box.scrollTop = 0;
    let last = performance.now();
    const step = (now) => {
        frames.push(now - last);
        last = now;
        box.scrollTop += 120;
        if (frames.length < 240) requestAnimationFrame(step);
        else done({frames: frames.slice(2), tiles: document.querySelectorAll(".tile").length});
    };
    requestAnimationFrame(step);
})"""


def fill(data: Path, count: int) -> float:
    """Picture files with their settings, and their rows by the store's own way; seconds that this took."""
    from stable_diffusion.jobs import JobService

    began, folder = time.monotonic(), data / "pictures" / "2026-11-30"
    folder.mkdir(parents=True)
    for index in range(count):
        text = PngInfo()
        thing = THINGS[index % len(THINGS)]
        text.add_text(
            "parameters", f"a {thing}, number {index}\nSteps: 4, Sampler: Euler, Seed: {index}, Size: 256x256"
        )
        shade = Image.linear_gradient("L").rotate(index % 360)
        tint = Image.new("RGB", shade.size, ((37 * index) % 256, (91 * index) % 256, (151 * index) % 256))
        picture = Image.blend(tint, Image.merge("RGB", (shade,) * 3), 0.4)
        picture.save(folder / f"{index:016x}-0000.png", pnginfo=text, compress_level=1)
    service = JobService(data)
    assert service.gallery.rebuild() == count
    service.close()
    return time.monotonic() - began


def address(process: subprocess.Popen[bytes], log: Path) -> str:
    while process.poll() is None:
        if found := re.search(r"listening at (http://\S+)", log.read_text()):
            return found[1].rstrip("/") + "/"
        time.sleep(0.1)
    raise SystemExit(log.read_text())


def since(start: float) -> int:
    return round(1000 * (time.monotonic() - start))


def spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median": round(ordered[len(ordered) // 2], 1),
        "p95": round(ordered[int(len(ordered) * 0.95)], 1),
        "most": round(ordered[-1], 1),
    }


def in_sight(page: Any) -> bool:
    """Whether every thumbnail in sight is drawn."""
    return bool(
        page.evaluate(
            """() => {
                const box = document.querySelector(".tiles")?.getBoundingClientRect();
                const seen = [...document.querySelectorAll(".tile img")].filter((each) => {
                    const place = each.getBoundingClientRect();
                    return place.bottom > box.top && place.top < box.bottom;
                });
                return seen.length > 0 && seen.every((each) => each.complete && each.naturalWidth > 0);
            }"""
        )
    )


def wait(holds: Any) -> None:
    while not holds():
        time.sleep(0.01)


def measured(page: Any, url: str, count: int) -> dict[str, Any]:
    """The figures, in milliseconds."""
    found: dict[str, Any] = {}
    for name in ("gallery, thumbnails not made yet", "gallery, thumbnails made"):
        start = time.monotonic()
        page.goto("about:blank")
        page.goto(url + "#/gallery")
        wait(lambda: in_sight(page))
        found[name] = since(start)
    scrolled = page.evaluate(SCROLL)
    found |= {"frames while scrolling": spread(scrolled["frames"]), "tiles in the document": scrolled["tiles"]}
    page.locator(".tile").first.click()
    start = time.monotonic()
    page.keyboard.press("End")
    page.locator(f"#tile-{0:016x}-0").wait_for()
    found["key End to the last picture"] = since(start)
    wait(lambda: in_sight(page))
    found["and all thumbnails there"] = since(start)
    found["frames while scrolling, all listed"] = spread(page.evaluate(SCROLL)["frames"])
    start = time.monotonic()
    page.fill("#search", f"number {count // 2}")
    wait(lambda: page.locator(".tile").count() == 1)
    found["search to its one picture (250 of them for the next key)"] = since(start)
    page.fill("#search", "")
    wait(lambda: page.locator(".tile").count() > 1)
    page.goto(url + "#/paint")
    page.fill("#f-prompt", WORDS)
    page.wait_for_load_state("networkidle")
    found["key stroke to screen, 2,000 tokens"] = spread(page.evaluate(KEYS))
    return found


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    count = parser.parse_args().pictures
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        data, log = Path(folder) / "data", Path(folder) / "log.txt"
        figures: dict[str, Any] = {"pictures": count, "seconds to fill": round(fill(data, count), 1)}
        command = [sys.executable, "-m", "stable_diffusion", "serve", "--port", "0", "--data", str(data)]
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            url = address(process, log)
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            page = chromium.new_page(viewport={"width": 1280, "height": 800})
            figures |= measured(page, url, count)
            chromium.close()
        finally:
            process.terminate()
            process.wait(10)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
