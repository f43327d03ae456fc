"""The sheets of a plot: its cells side by side, with labels where they are wanted, and what the sheets' text says."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from ....images import GeneratedImage
from ....pipeline.grid import draw
from ....request.writers.infotext import quoted
from .arguments import TITLE, Plot
from .axes import NOTHING, SEEDS


def sheets(plot: Plot, pictures: Sequence[Image.Image | None]) -> list[Image.Image]:
    """The whole plot, then the sheet of each value of Z; None is an empty cell. At least one picture is there."""
    columns, rows, blocks = plot.shape
    first = next(picture for picture in pictures if picture is not None)
    filled = [picture or Image.new("RGB", first.size, "white") for picture in pictures]
    each = columns * rows
    parts = []
    for block in range(blocks):
        cells = filled[block * each : (block + 1) * each]
        if plot.legend:
            parts.append(draw(plot.x.labels, plot.y.labels, [""], cells, plot.margin))
        else:
            parts.append(tiled(cells, columns, plot.margin))
    if blocks == 1:
        return [parts[0], parts[0]]
    whole = draw(plot.z.labels, [""], [""], parts, plot.margin) if plot.legend else tiled(parts, blocks, plot.margin)
    return [whole, *parts]


def tiled(pictures: Sequence[Image.Image], columns: int, margin: int) -> Image.Image:
    """Pictures in rows of so many, with white between them."""
    width, height = max(each.width for each in pictures), max(each.height for each in pictures)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + margin) - margin, rows * (height + margin) - margin), "white")
    for index, each in enumerate(pictures):
        row, column = divmod(index, columns)
        solid = each.convert("RGBA")
        sheet.paste(solid, (column * (width + margin), row * (height + margin)), solid)
    return sheet


def sheet_text(plot: Plot, text: str) -> str:
    """The parameters of a cell as those of the sheet: with the script, its axes and their values."""
    values: dict[str, object] = {"Script": TITLE}
    for name, side in zip("XYZ", (plot.x, plot.y, plot.z), strict=True):
        if side.axis.label == NOTHING:
            continue
        values |= {f"{name} Type": side.axis.label, f"{name} Values": side.given}
        if side.axis.label in SEEDS and plot.fixed:
            values[f"Fixed {name} Values"] = ", ".join(map(str, side.values))
    return ", ".join([text, *(f"{name}: {quoted(value)}" for name, value in values.items())])


def sheet_file(sheet: Image.Image, text: str) -> bytes:
    """A PNG file with its text."""
    made, file = GeneratedImage.of(sheet), io.BytesIO()
    made.info["parameters"] = text
    made.save(file, "PNG")
    return file.getvalue()
