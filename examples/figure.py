"""What the example scripts share: a labelled grid of pictures, and the command line `--model FILE --out PICTURE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import stable_diffusion

IMAGES = Path(__file__).parent.parent / "docs" / "images"
GAP, LABEL = 6, 20
SIDE = 128
"""Pictures are shown no wider than this, so that a figure of many stays small."""


def font(size: int = 12) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def shown(image: Image.Image, side: int) -> Image.Image:
    """Over white, shrunk by the factor that makes a picture of this side `SIDE` wide."""
    factor = min(1.0, SIDE / side)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return over_white(image) if factor == 1 else over_white(image).resize(size, Image.Resampling.LANCZOS)


def grid(rows: Sequence[Sequence[Image.Image]], columns: Sequence[str] = (), names: Sequence[str] = ()) -> Image.Image:
    """Pictures of one size in rows, with a label above each column and before each row."""
    side = rows[0][0].width
    rows = [[shown(picture, side) for picture in row] for row in rows]
    width, height = rows[0][0].size
    left = max((int(font().getlength(name)) + 2 * GAP for name in names), default=GAP)
    top = LABEL if columns else GAP
    sheet = Image.new("RGB", (left + len(rows[0]) * (width + GAP), top + len(rows) * (height + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(columns):
        pen.text((left + column * (width + GAP), 2), text, "black", font())
    for index, row in enumerate(rows):
        if names:
            pen.text((GAP, top + index * (height + GAP) + height // 2 - 8), names[index], "black", font())
        for column, picture in enumerate(row):
            sheet.paste(picture, (left + column * (width + GAP), top + index * (height + GAP)))
    return sheet


def run(draw: Callable[[stable_diffusion.StableDiffusion], Image.Image], name: str, what: str | None) -> None:
    """Load the model that the command line names, draw, save, and print where."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--model", help="model file or folder; without it the built-in model")
    parser.add_argument("--out", type=Path, default=IMAGES / name, help="where the figure goes")
    given = parser.parse_args()
    save(draw(stable_diffusion.load(given.model)), given.out)


def run_all(figures: Mapping[str, Callable[[stable_diffusion.StableDiffusion], Image.Image]], what: str | None) -> None:
    """The same for several figures: file name -> what draws it."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--model", help="model file or folder; without it the built-in model")
    parser.add_argument("--out", type=Path, default=IMAGES, help="the folder where the figures go")
    given = parser.parse_args()
    model = stable_diffusion.load(given.model)
    for name, draw in figures.items():
        save(draw(model), given.out / name)


def save(figure: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.save(path, **({"quality": 88, "method": 6} if path.suffix == ".webp" else {}))
    sys.stdout.write(f"{path}\n")
