"""Labelled sheets of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MARGIN, LABEL, FONT = 8, 22, 13
INK, PAPER = (40, 40, 40), (255, 255, 255)


def draw(
    columns: Sequence[str], rows: Sequence[str], blocks: Sequence[str], pictures: Sequence[Image], margin: int = MARGIN
) -> Image:
    """The sheet: pictures in reading order, column labels above, a label above each row and each block that has one.

    margin   pixels between the pictures
    """
    from PIL import Image, ImageDraw, ImageFont

    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    font = ImageFont.load_default(size=FONT)
    wide = max(width, *(round(font.getlength(text)) for text in columns))
    row_label, block_label = LABEL * any(rows), LABEL * any(blocks)
    step = height + margin + row_label
    block_step = block_label + len(rows) * step
    size = (margin + len(columns) * (wide + margin), LABEL + margin + len(blocks) * block_step)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(columns):
        pen.text((margin + column * (wide + margin), 5), text, INK, font)
    for block, text in enumerate(blocks):
        pen.text((margin, LABEL + block * block_step + 3), text, INK, font)
        for row, line in enumerate(rows):
            pen.text((margin, LABEL + block * block_step + block_label + row * step + 3), line, INK, font)
    for index, picture in enumerate(pictures):
        above, column = divmod(index, len(columns))
        block, row = divmod(above, len(rows))
        top = LABEL + block * block_step + block_label + row * step + row_label + margin // 2
        solid = picture.convert("RGBA")
        sheet.paste(solid, (margin + column * (wide + margin), top), solid)
    return sheet
