"""What a run leaves to look at: log.jsonl, loss.png, sample sheets, and one line of progress."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..weights.containers.atomic import atomic_file

CHECKER = (235, 214)


@dataclass(frozen=True)
class Progress:
    """State of a run for a progress line. total: planned steps, if known; left: seconds to the end of this call."""

    stage: str
    step: int
    total: int | None
    seconds: float
    left: float | None
    metrics: dict[str, float]

    def line(self) -> str:
        of = f"/{self.total}" if self.total is not None else ""
        left = "" if self.left is None else f"  {_clock(self.left)} left"
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"{self.stage} step {self.step}{of}  {numbers}{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d}"


class Log:
    """RUN/log.jsonl, one object a line. Opening it at step n drops lines of later steps: those will be done again."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.lines = [line for line in _read(path) if line.get("step", 0) <= step]
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in self.lines).encode())

    def add(self, **fields: Any) -> None:
        line = {k: round(v, 6) if isinstance(v, float) else v for k, v in fields.items()}
        self.lines.append(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _read(path: Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:  # a line cut short by a kill
            continue
    return lines


def write_atomic(path: Path, data: bytes) -> None:
    """Whole file or no file."""
    with atomic_file(path) as file:
        file.write(data)


def save_png(image: Image.Image, path: Path) -> None:
    import io

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())


def loss_curve(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel per logged number. Without matplotlib (extra `train`) nothing is drawn; the log has it all."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return
    skip = {"step", "seconds", "rate", "samples_per_second"}
    names = sorted({k for line in lines for k, v in line.items() if isinstance(v, (int, float)) and k not in skip})
    if not names:
        return
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows))
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.25 / rows, top=1 - 0.12 / rows, hspace=0.45, wspace=0.3)
    FigureCanvasAgg(figure)
    for number, name in enumerate(names):
        axis = figure.add_subplot(rows, columns, number + 1)
        points = [(line["step"], line[name]) for line in lines if name in line]
        axis.plot(*zip(*points, strict=True), linewidth=0.8, color="tab:blue")
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    with atomic_file(path) as file:
        figure.savefig(file, dpi=90, format="png")


def over_checker(picture: NDArray[np.uint8], cell: int = 8) -> NDArray[np.uint8]:
    """RGBA [H,W,4] straight alpha over a light checkerboard -> RGB [H,W,3]."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width] // cell
    board = np.where((x + y) % 2 == 0, CHECKER[0], CHECKER[1])[..., None].astype(np.float32)
    alpha = picture[..., 3:].astype(np.float32) / 255
    mixed: NDArray[np.uint8] = (picture[..., :3] * alpha + board * (1 - alpha)).round().astype(np.uint8)
    return mixed


def sheet(pictures: NDArray[np.uint8], columns: int, labels: Sequence[str] | None = None) -> Image.Image:
    """Pictures [N,H,W,4] in rows of `columns` over a checkerboard, each with an optional line of text under it."""
    count, height, width = pictures.shape[:3]
    strip = 14 if labels else 0
    rows = -(-count // columns)
    canvas = Image.new("RGB", (columns * (width + 4), rows * (height + strip + 4)), "white")
    draw = ImageDraw.Draw(canvas)
    font = label_font() if labels else None
    for number, picture in enumerate(pictures):
        left, top = (number % columns) * (width + 4) + 2, (number // columns) * (height + strip + 4) + 2
        canvas.paste(Image.fromarray(over_checker(picture)), (left, top))
        if labels:
            draw.text((left, top + height), labels[number][: width // 6], fill="black", font=font)
    return canvas


def label_font() -> Any:
    """A font with Chinese glyphs where the system has one, else Pillow's own."""
    for name in ("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "DejaVuSans.ttf"):
        try:
            return ImageFont.truetype(name, 11)
        except OSError:
            continue
    return ImageFont.load_default()
