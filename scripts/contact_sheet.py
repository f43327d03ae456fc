"""Draw the prompts of a text file, one per line, on one labelled sheet: `python scripts/contact_sheet.py --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image, ImageDraw

import stable_diffusion
from stable_diffusion.training.report import label_font

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 8
PAPER = (255, 255, 255, 255)


def read_prompts(path: Path) -> list[str]:
    """The lines of a file that are neither empty nor comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def draw(prompts: list[str], model: stable_diffusion.StableDiffusion, seed: int) -> list[Image.Image]:
    """One picture per prompt, all from the same seed, over white."""
    pictures = []
    for number, prompt in enumerate(prompts):
        picture = stable_diffusion.generate_image(prompt, model=model, seed=seed).convert("RGBA")
        pictures.append(Image.alpha_composite(Image.new("RGBA", picture.size, PAPER), picture).convert("RGB"))
        sys.stderr.write(f"\r{number + 1}/{len(prompts)}")
    return pictures


def sheet(pictures: list[Image.Image], prompts: list[str], columns: int) -> Image.Image:
    """Pictures in rows, each with its prompt under it."""
    width, height = pictures[0].size
    cell, row = width + 12, height + 22
    canvas = Image.new("RGB", (columns * cell, -(-len(pictures) // columns) * row), "white")
    pen, font = ImageDraw.Draw(canvas), label_font()
    for number, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        left, top = number % columns * cell + 6, number // columns * row + 4
        canvas.paste(picture, (left, top))
        pen.text((left, top + height + 1), prompt[: cell // 5], fill="black", font=font)
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, default=ROOT / "recipes/embedded/prompts.txt")
    parser.add_argument("--model", default=None, help="model file; without one the embedded model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--columns", type=int, default=COLUMNS)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/contact_sheet.png")
    given = parser.parse_args()
    prompts = read_prompts(given.prompts)
    pictures = draw(prompts, stable_diffusion.load(given.model), given.seed)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(pictures, prompts, given.columns).save(given.out)


if __name__ == "__main__":
    main()
