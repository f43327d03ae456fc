"""What the tests of the page share: waiting, dropping files, counting pixels."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 60.0
"""Seconds that a busy machine may need for what takes none; a test that passes never waits so long."""


def settle(true: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Waits until `true()` holds. (Text for `wait_for_function` is evaluated in the page, which its policy forbids.)"""
    until = time.monotonic() + max(seconds, PATIENCE)
    while not true():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.04)


def still(page: Any) -> None:
    """Waits until nothing on the page moves that comes to an end by itself."""
    ends = "(each) => each.effect?.getComputedTiming().iterations !== Infinity && each.playState === 'running'"
    settle(lambda: page.evaluate(f"document.getAnimations().filter({ends}).length") == 0)


def mask_canvas(page: Any) -> Any:
    """The mask editor's canvas, once it shows its picture: an empty one has a browser's own size."""
    canvas = page.locator("#mask-canvas")
    canvas.wait_for()
    settle(lambda: canvas.evaluate("each => [each.width, each.height].join()") != "300,150")
    still(page)
    return canvas


def drop(page: Any, selector: str, data: bytes, name: str = "picture.png", kind: str = "image/png") -> None:
    """Drops a file on an element."""
    transfer = page.evaluate_handle(
        """([data, name, type]) => {
            const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0)), transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type}));
            return transfer;
        }""",
        [base64.b64encode(data).decode(), name, kind],
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer})


def painted(page: Any) -> float:
    """Share of the mask editor's canvas that is not empty."""
    return float(
        page.locator("#mask-canvas").evaluate(
            """(each) => {
                if (!each.width) return 0;
                const px = each.getContext("2d").getImageData(0, 0, each.width, each.height).data;
                let count = 0;
                for (let i = 3; i < px.length; i += 4) count += px[i] > 0;
                return count / (px.length / 4);
            }"""
        )
    )
