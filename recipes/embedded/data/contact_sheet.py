"""A contact sheet: many pictures of a pack on one PNG, with their names, to look at before training."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .pack import read_lines
from .render import Picture


def sheet(pictures: Sequence[Picture], labels: Sequence[str], columns: int, cell: int = 96) -> Image.Image:
    """Pictures over a light grey ground, row by row, each with its label under it."""
    lines = -(-len(pictures) // columns)
    board = Image.new("RGB", (columns * cell, lines * (cell + 12)), (236, 236, 236))
    draw = ImageDraw.Draw(board)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left, top = index % columns * cell, index // columns * (cell + 12)
        image = Image.fromarray(picture, "RGBA").resize((cell - 4, cell - 4), Image.Resampling.LANCZOS)
        board.paste(image, (left + 2, top), image)
        draw.text((left + 2, top + cell - 3), label[: cell // 6], fill=(60, 60, 60))
    return board


def main() -> None:
    """Write a sheet of a shard: every picture, or a seeded sample, filtered by style or words in the concept."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("shard", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--style")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--start", type=int, help="take pictures in order from here instead of a sample")
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("--cell", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images = np.load(options.shard / "images.npy", mmap_mode="r")
    records = read_lines(options.shard / "records.jsonl")
    chosen = [i for i, record in enumerate(records) if options.style in (None, record["style"])]
    if options.start is None:
        chosen = sorted(random.Random(options.seed).sample(chosen, min(options.count, len(chosen))))
    else:
        chosen = chosen[options.start : options.start + options.count]
    labels = [" ".join(filter(None, (records[i]["colour"], records[i]["concept"]))) for i in chosen]
    sheet([np.asarray(images[i]) for i in chosen], labels, options.columns, options.cell).save(options.output)


if __name__ == "__main__":
    main()
