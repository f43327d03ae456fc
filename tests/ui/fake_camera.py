"""A clip for Chromium's fake camera, and what a page's canvas shows of it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT, RATE, FRAMES = 320, 240, 10, 60
"""Of the clip: the ball goes from left to right and back in six seconds."""
FLAGS = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")


def write_ball(path: Path) -> Path:
    """A red ball that moves over a grey ground, as Y4M (raw YUV 4:2:0 frames)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{RATE}:1 Ip A1:1 C420jpeg\n".encode())
        for number in range(FRAMES):
            share = abs(2 * number / FRAMES - 1)  # 1 to 0 to 1
            ball = (x - (90 + 140 * share)) ** 2 + (y - HEIGHT / 2) ** 2 < 40**2
            luma = np.where(ball, 80, 150).astype(np.uint8)
            small = ball[::2, ::2]
            blue, red = np.where(small, 100, 128).astype(np.uint8), np.where(small, 240, 128).astype(np.uint8)
            file.write(b"FRAME\n" + luma.tobytes() + blue.tobytes() + red.tobytes())
    return path


def pixels(page: Any, selector: str = ".live-view canvas") -> np.ndarray[Any, Any]:
    """A canvas as [H,W,4] bytes."""
    found = page.locator(selector).evaluate(
        """(each) => {
            const bytes = each.getContext("2d").getImageData(0, 0, each.width, each.height).data;
            let text = "";
            for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
            return [each.height, each.width, btoa(text)];
        }"""
    )
    return np.frombuffer(base64.b64decode(found[2]), np.uint8).reshape(found[0], found[1], 4)


def red_place(image: np.ndarray[Any, Any]) -> float | None:
    """Where the red is, as a share of the width; None where there is too little."""
    red, green, blue = (image[..., index].astype(int) for index in range(3))
    strong = (red - np.maximum(green, blue)) > 60
    return float(np.nonzero(strong)[1].mean() / image.shape[1]) if strong.mean() > 0.01 else None
