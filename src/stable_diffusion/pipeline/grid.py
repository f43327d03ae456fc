"""X/Y/Z grids: every combination of the values of some settings, as one labelled picture.

An axis is written NAME=A,B,C: values with a comma stand in double quotes, numbers may be ranges ("1-4", "1-9 (+2)",
"1-9 [5]", the last one five numbers evenly spread). The axis `prompt` searches for its first value in the prompt and
replaces it by each of its values.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, unknown_choice
from ..request.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image

AXES: dict[str, tuple[str, type]] = {
    "seed": ("seed", int),
    "steps": ("steps", int),
    "guidance": ("guidance", float),
    "cfg": ("guidance", float),
    "sampler": ("sampler", str),
    "schedule": ("schedule", str),
    "prompt": ("prompt", str),
    "negative": ("negative_prompt", str),
    "width": ("width", int),
    "height": ("height", int),
    "strength": ("strength", float),
    "clip-skip": ("clip_skip", int),
    "background": ("background", str),
    "guidance-rescale": ("guidance_rescale", float),
    "image-guidance": ("image_guidance", float),
    "emphasis": ("prompting.emphasis", str),
    "style": ("prompting.styles", str),
    "eta": ("noise.eta", float),
    "s-churn": ("noise.s_churn", float),
    "s-noise": ("noise.s_noise", float),
    "variation-seed": ("variation.seed", int),
    "variation-strength": ("variation.strength", float),
    "hires": ("hires.scale", float),
    "hires-steps": ("hires.steps", int),
    "hires-strength": ("hires.strength", float),
    "hires-upscaler": ("hires.upscaler", str),
    "refiner": ("refiner.model", str),
    "refiner-switch": ("refiner.switch", float),
    "shift": ("noise.shift", float),
    "mask-blur": ("inpaint.blur", float),
    "fill": ("inpaint.fill", str),
    "tiling": ("canvas.tiling", str),
    "window": ("canvas.window", int),
}
"""Name of an axis -> field of the request (or of a group in it), and kind of its values."""
REPLACED = ("prompt", "negative_prompt")
"""Fields in which the first value is searched for and replaced."""
MAX_CELLS, MAX_VALUES = 400, 64
MARGIN, LABEL, FONT = 8, 22, 13
INK, PAPER = (40, 40, 40), (255, 255, 255)
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\s*-\s*(-?\d+(?:\.\d+)?)(?:\s*\((\+?-?\d+(?:\.\d+)?)\)|\s*\[(\d+)\])?")


@dataclass(frozen=True)
class Axis:
    """A setting and its values."""

    name: str
    values: tuple[Any, ...]

    @staticmethod
    def parse(text: str) -> Axis:
        """ "steps=10,20" -> that axis. InvalidRequest for an unknown name or a value of another kind."""
        name, sign, values = text.partition("=")
        name = name.strip().lower().replace("_", "-")
        if not sign or name not in AXES:
            raise unknown_choice("axis", name if sign else text, AXES)
        words = next(csv.reader([values], skipinitialspace=True), [])
        found = [value for word in words for value in _values(name, word.strip(), AXES[name][1])]
        if not found or len(found) > MAX_VALUES:
            raise InvalidRequest(f"the axis {name!r} has {len(found)} values; expected 1 to {MAX_VALUES}")
        return Axis(name, tuple(found))

    def changed(self, request: Request, value: Any) -> Request:
        """The request with this value."""
        group, dot, name = AXES[self.name][0].rpartition(".")
        if name in REPLACED:
            text, searched = getattr(request, name), str(self.values[0])
            if searched not in text:
                raise InvalidRequest(f"{searched!r} is not in the {self.name}; the first value is what is replaced")
            value = text.replace(searched, str(value))
        return request.changed(**({group: {name: value}} if dot else {name: value}))

    def label(self, value: Any) -> str:
        return f"{self.name} {value:g}" if isinstance(value, float) else f"{self.name} {value}"


def _values(name: str, word: str, kind: type) -> list[Any]:
    span = _RANGE.fullmatch(word) if kind is not str else None
    if span is None:
        try:
            return [kind(word)]
        except ValueError:
            expected = "a whole number" if kind is int else "a number"
            raise InvalidRequest(f"the axis {name!r} has the value {word!r}; expected {expected}") from None
    first, last = float(span[1]), float(span[2])
    if span[4] is not None:
        count = min(int(span[4]), MAX_VALUES + 1)
        found = [first + (last - first) * i / max(1, count - 1) for i in range(count)]
    else:
        step = abs(float(span[3])) if span[3] is not None else 1.0
        if step == 0:
            raise InvalidRequest(f"the axis {name!r} has the range {word!r} with steps of 0; expected more")
        count = min(int(abs(last - first) / step + 1e-9), MAX_VALUES) + 1
        found = [first + (step if last >= first else -step) * i for i in range(count)]
    return [kind(round(value)) if kind is int else round(value, 10) for value in found]


@dataclass(frozen=True)
class Grid:
    """Columns, rows and blocks of cells; an axis without values is left out."""

    x: Axis | None = None
    y: tuple[Axis, ...] = ()
    z: Axis | None = None

    def cells(self, base: Request) -> list[Request]:
        """The requests in reading order, block by block. InvalidRequest where there are too many."""
        if (count := len(self.columns) * len(self.rows) * len(self.blocks)) > MAX_CELLS:
            raise InvalidRequest(f"the grid has {count} pictures: expected at most {MAX_CELLS}")
        return [
            self._made(base, {**block, **row, **column})
            for block, row, column in itertools.product(self.blocks, self.rows, self.columns)
        ]

    @property
    def columns(self) -> list[dict[Axis, Any]]:
        return _combined([] if self.x is None else [self.x])

    @property
    def rows(self) -> list[dict[Axis, Any]]:
        return _combined(self.y)

    @property
    def blocks(self) -> list[dict[Axis, Any]]:
        return _combined([] if self.z is None else [self.z])

    def _made(self, base: Request, values: Mapping[Axis, Any]) -> Request:
        for axis, value in values.items():
            base = axis.changed(base, value)
        return base

    def drawn(self, pictures: Sequence[Image]) -> Image:
        """The sheet of the cells' pictures."""
        columns, rows, blocks = ([label(values) for values in side] for side in (self.columns, self.rows, self.blocks))
        return draw(columns, rows, blocks, pictures)


def _combined(axes: Sequence[Axis]) -> list[dict[Axis, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def label(values: Mapping[Axis, Any]) -> str:
    """What a column, row or block says: "sampler euler, steps 10"."""
    return ", ".join(axis.label(value) for axis, value in values.items())


def settings(values: Mapping[Axis, Any]) -> dict[str, Any]:
    """The same for JSON."""
    return {axis.name: value for axis, value in values.items()}


def draw(columns: Sequence[str], rows: Sequence[str], blocks: Sequence[str], pictures: Sequence[Image]) -> Image:
    """The sheet: pictures in reading order, column labels above, a label above each row and each block that has one."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    font = ImageFont.load_default(size=FONT)
    wide = max(width, *(round(font.getlength(text)) for text in columns))
    row_label, block_label = LABEL * any(rows), LABEL * any(blocks)
    step = height + MARGIN + row_label
    block_step = block_label + len(rows) * step
    size = (MARGIN + len(columns) * (wide + MARGIN), LABEL + MARGIN + len(blocks) * block_step)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(columns):
        pen.text((MARGIN + column * (wide + MARGIN), 5), text, INK, font)
    for block, text in enumerate(blocks):
        pen.text((MARGIN, LABEL + block * block_step + 3), text, INK, font)
        for row, line in enumerate(rows):
            pen.text((MARGIN, LABEL + block * block_step + block_label + row * step + 3), line, INK, font)
    for index, picture in enumerate(pictures):
        above, column = divmod(index, len(columns))
        block, row = divmod(above, len(rows))
        top = LABEL + block * block_step + block_label + row * step + row_label + MARGIN // 2
        solid = picture.convert("RGBA")
        sheet.paste(solid, (MARGIN + column * (wide + MARGIN), top), solid)
    return sheet
