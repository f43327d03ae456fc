"""The terminal: a live preview drawn with half blocks and a progress bar, both on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console, RenderableType
    from rich.text import Text

UPPER_HALF = "▀"


def stderr_console() -> Console:
    """Rich console on stderr; plain text where stderr is not a terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def half_blocks(image: Image, columns: int = 48, rows: int = 24) -> Text:
    """A picture as text: each character shows two pixels, the upper as ink and the lower as ground.

    Fits into `columns` x `rows` characters with its proportions kept; transparent pixels are shown over grey.
    """
    from PIL import Image as Pillow
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    scale = min(columns / image.width, 2 * rows / image.height)
    width = max(1, round(image.width * scale))
    height = max(2, 2 * round(image.height * scale / 2))
    picture = image.convert("RGBA").resize((width, height), Pillow.Resampling.BILINEAR)
    ground = Pillow.new("RGBA", picture.size, (128, 128, 128, 255))
    pixels = Pillow.alpha_composite(ground, picture).convert("RGB").tobytes()

    def colour(x: int, y: int) -> Color:
        at = 3 * (y * width + x)
        return Color.from_rgb(*pixels[at : at + 3])

    text = Text(no_wrap=True, end="")
    for y in range(0, height, 2):
        for x in range(width):
            text.append(UPPER_HALF, Style(color=colour(x, y), bgcolor=colour(x, y + 1)))
        text.append("\n")
    return text


class Display:
    """Progress bar with a picture above it. Draws nothing where `console` is not a terminal.

    Use as a context manager; `advance` shows that `done` of `total` steps are through. `preview` says whether a picture
    will be drawn, so that none need be made otherwise.
    """

    def __init__(self, console: Console, *, preview: bool) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console, self.preview = console, preview and console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self.task = self.bar.add_task("loading", total=None)
        self.picture: Text | None = None
        self.live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._render)

    def _render(self) -> RenderableType:
        from rich.console import Group

        return Group(self.picture, self.bar) if self.picture is not None else self.bar

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live.is_started:
            self.live.stop()

    def advance(self, done: int, total: int, description: str = "generating", picture: Image | None = None) -> None:
        """Show the state after a step."""
        self.bar.update(self.task, completed=done, total=total, description=description)
        if self.preview and picture is not None:
            self.picture = half_blocks(picture, self._columns(), self._rows())

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        self.console.print(line, markup=False, soft_wrap=True)

    def _columns(self) -> int:
        return max(8, min(64, self.console.width - 2))

    def _rows(self) -> int:
        return max(4, min(32, self.console.height - 4))
