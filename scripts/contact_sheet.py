"""Draw the prompts of a text file on labelled sheets, one for each group: `python scripts/contact_sheet.py --help`.

    python scripts/contact_sheet.py       six sheets of 100 prompts: docs/images/contact_GROUP.webp
    python scripts/contact_sheet.py --prompts recipes/embedded/prompts.txt     one: contact_sheet.webp
    python scripts/contact_sheet.py --blind blind     every picture under a number, in a shuffled order, for somebody
                                                      who has not read the prompts; blind/key.tsv says what was asked

A prompt a line; "## name" begins a group. Pictures are painted at the model's own size and shrunk to --side; a sheet
that is still larger than --kilobytes loses quality first (WebP) and then size.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import stable_diffusion
from stable_diffusion.training.report import label_font

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # the recipe, whose prompts are drawn

from recipes.embedded.prompts import read_prompts  # noqa: E402

PAPER = (255, 255, 255, 255)
GAP, LINE, LINES, SIZE = 6, 13, 2, 11
QUALITIES = (92, 85, 75)
BLIND = 20
"""Pictures on a sheet of the blind form: few enough to be seen large."""
SHRINK, SMALLEST = 0.85, 48


def draw(prompts: Sequence[str], model: stable_diffusion.StableDiffusion, seed: int, name: str) -> list[Image.Image]:
    """One picture per prompt, all from the same seed, over white."""
    pictures = []
    for number, prompt in enumerate(prompts):
        picture = stable_diffusion.generate_image(prompt, model=model, seed=seed).convert("RGBA")
        pictures.append(Image.alpha_composite(Image.new("RGBA", picture.size, PAPER), picture).convert("RGB"))
        sys.stderr.write(f"\r{name or 'prompts'} {number + 1}/{len(prompts)} ")
    sys.stderr.write("\n")
    return pictures


def font_of(path: Path | None) -> ImageFont.FreeTypeFont:
    """Small type: the font that is named, or the system's."""
    found = label_font() if path is None else ImageFont.truetype(path, SIZE)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


def unknown(font: ImageFont.FreeTypeFont, text: str) -> set[str]:
    """The letters of a text that the font draws as it draws what it does not have."""
    nothing = bytes(font.getmask("\U0010fffd"))
    return {letter for letter in text if not letter.isspace() and bytes(font.getmask(letter)) == nothing}


def sheet(
    pictures: Sequence[Image.Image], prompts: Sequence[str], columns: int, side: int, font: ImageFont.FreeTypeFont
) -> Image.Image:
    """Pictures in rows, at most `side` pixels high and wide, each with its prompt in small type under it."""
    small = [shrunk(picture, side) for picture in pictures]
    width, height = small[0].size
    cell, row = width + 2 * GAP, height + GAP + LINES * LINE
    canvas = Image.new("RGB", (columns * cell, -(-len(small) // columns) * row), "white")
    pen = ImageDraw.Draw(canvas)
    for number, (picture, prompt) in enumerate(zip(small, prompts, strict=True)):
        left, top = number % columns * cell + GAP, number // columns * row + GAP // 2
        canvas.paste(picture, (left, top))
        for line, text in enumerate(wrapped(prompt, cell - 4, font)):
            pen.text((left, top + height + 1 + line * LINE), text, fill="black", font=font)
    return canvas


def shrunk(picture: Image.Image, side: int) -> Image.Image:
    """The picture itself where it is small enough."""
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """The text in at most `LINES` lines of so many pixels, parted at spaces where there are any; the rest is cut."""
    lines, rest = [], text
    while rest and len(lines) < LINES:
        fits = next((n for n in range(len(rest), 1, -1) if font.getlength(rest[:n]) <= width), 1)
        space = rest.rfind(" ", 0, fits + 1)
        end = fits if fits == len(rest) or space <= 0 else space
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    return lines


def encoded(
    pictures: Sequence[Image.Image],
    prompts: Sequence[str],
    columns: int,
    side: int,
    font: ImageFont.FreeTypeFont,
    kind: str,
    limit: int,
) -> bytes:
    """The sheet's file of at most `limit` bytes: at lower quality, then smaller, if need be."""
    while True:
        drawn = sheet(pictures, prompts, columns, side, font)
        for quality in QUALITIES if kind == "webp" else (None,):
            out = io.BytesIO()
            drawn.save(out, kind, **({"optimize": True} if quality is None else {"quality": quality, "method": 6}))
            if out.tell() <= limit or (side <= SMALLEST and quality in (None, QUALITIES[-1])):
                return out.getvalue()
        side = max(SMALLEST, int(min(side, max(pictures[0].size)) * SHRINK))


def write_blind(pictures: Sequence[Image.Image], prompts: Sequence[str], folder: Path, side: int, columns: int) -> None:
    """Sheets of `BLIND` pictures under numbers from 1 on, in an order that tells nothing; key.tsv tells all."""
    order = list(range(len(prompts)))
    random.Random(len(prompts)).shuffle(order)
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(order), BLIND):
        part = order[start : start + BLIND]
        numbers = [str(start + index + 1) for index in range(len(part))]
        drawn = sheet([pictures[index] for index in part], numbers, columns, side, font_of(None))
        drawn.save(folder / f"sheet_{start // BLIND + 1}.png")
    lines = [f"{number}\t{prompts[index]}\n" for number, index in enumerate(order, start=1)]
    (folder / "key.tsv").write_text("".join(lines), encoding="utf-8")
    print(f"{folder}: {len(prompts)} pictures; what was asked for is in key.tsv")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, default=ROOT / "recipes/embedded/prompts_100.txt")
    parser.add_argument("--group", action="append", help="only this group of the file; may be repeated")
    parser.add_argument("--model", default=None, help="model file; without one the embedded model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--side", type=int, default=144, help="pixels that a picture is shrunk to, if it is larger")
    parser.add_argument("--kilobytes", type=int, default=400, help="of a sheet, at most")
    parser.add_argument("--font", type=Path, help="font file with the letters of all prompts; without it the system's")
    parser.add_argument("--format", choices=["webp", "png"], default="webp")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images", help="folder; contact_GROUP is written there")
    parser.add_argument("--blind", type=Path, metavar="FOLDER", help="numbers instead of prompts, all groups mixed")
    given = parser.parse_args(arguments)
    groups = read_prompts(given.prompts)
    missing = [name for name in given.group or [] if name not in groups]
    if missing:
        parser.error(f"there is no group {missing[0]!r} in {given.prompts}: choose from {', '.join(groups)}")
    model, font = stable_diffusion.load(given.model), font_of(given.font)
    strange = unknown(font, "".join(prompt for name in given.group or groups for prompt in groups[name]))
    if strange:
        sys.stderr.write(f"note: the font has no {''.join(sorted(strange)[:8])} ...; name one that has with --font\n")
    if given.blind is not None:
        asked = [prompt for name in given.group or groups for prompt in groups[name]]
        write_blind(draw(asked, model, given.seed, "blind"), asked, given.blind, given.side, min(given.columns, 5))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.group or groups:
        pictures = draw(groups[name], model, given.seed, name)
        path = given.out / f"contact_{name.lower().replace(' ', '_') or 'sheet'}.{given.format}"
        path.write_bytes(
            encoded(pictures, groups[name], given.columns, given.side, font, given.format, given.kilobytes * 1000)
        )
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
