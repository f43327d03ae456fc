"""Panoramas of the built-in model, judged by their numbers and laid out on one sheet to be judged by eye.

    python scripts/panorama_sheet.py docs/images/panoramas.webp

Prints a line for each prompt and the totals. The numbers:

- sky above ground: the mean colours of the top and bottom thirds are nearer to those of the same prompt's ordinary
  picture, and in its order, than in the opposite order;
- seam: how much more the first and last columns differ than any two columns within `NEAR` of them do, of 255;
- poles: the standard deviation of the colours around the first and the last row, of 255.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import stable_diffusion

PROMPTS = (
    "a green meadow under a blue sky",
    "a beautiful sunset over the ocean",
    "snowy mountains under a clear sky",
    "a desert with sand dunes at noon",
    "a sandy beach by the sea",
    "a forest in autumn",
    "a lake between mountains",
    "a field of yellow flowers",
    "a starry night over hills",
    "a village in a green valley",
    "a city skyline at night",
    "a road through fields",
    "a river in a forest",
    "a rainbow over a meadow",
    "夕阳下的大海",
    "蓝天下的草地",
    "雪山和湖",
    "沙漠里的沙丘",
    "海边的沙滩",
    "秋天的森林",
)
FIRST_SEED = 5
NEAR = 16
"""Columns beside the seam: two places of the latent, whose grid the decoder shows faintly."""
COLUMNS, WIDTH, GAP = 4, 320, 6
Pixels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """The numbers of a panorama; `order` is negative where sky is above ground, the further from 0 the clearer."""

    order: float
    seam: float
    poles: float
    mode: str

    @property
    def good(self) -> bool:
        """Sky above ground, no seam, even poles, and no holes."""
        return self.order < 0 and self.seam <= 1 and self.poles <= 1 and self.mode == "RGB"


def judge(panorama: Image.Image, ordinary: Image.Image) -> Judged:
    """A panorama against the ordinary picture of its prompt."""
    pixels = np.asarray(panorama.convert("RGB")).astype(float)
    return Judged(order=_order(panorama, ordinary), seam=_seam(pixels), poles=_poles(pixels), mode=panorama.mode)


def _order(panorama: Image.Image, ordinary: Image.Image) -> float:
    (top, bottom), (sky, ground) = _thirds(panorama), _thirds(ordinary)

    def apart(a: Pixels, b: Pixels) -> float:
        return float(np.linalg.norm(a - b))

    return apart(top, sky) + apart(bottom, ground) - apart(top, ground) - apart(bottom, sky)


def _thirds(image: Image.Image) -> tuple[Pixels, Pixels]:
    """Mean colours of the top and bottom thirds, as far as they are opaque."""
    pixels = np.asarray(image.convert("RGBA")).astype(float)
    third = len(pixels) // 3
    parts = (pixels[:third].reshape(-1, 4), pixels[-third:].reshape(-1, 4))
    top, bottom = (np.average(part[:, :3], axis=0, weights=part[:, 3] + 1e-6) for part in parts)
    return top, bottom


def _seam(pixels: Pixels) -> float:
    around = np.roll(pixels, NEAR, axis=1)[:, : 2 * NEAR]
    steps = np.abs(np.diff(around, axis=1)).mean(axis=(0, 2))
    return float(steps[NEAR - 1] - np.delete(steps, NEAR - 1).max())


def _poles(pixels: Pixels) -> float:
    return float(max(pixels[0].std(axis=0).max(), pixels[-1].std(axis=0).max()))


def main(out: Path) -> None:
    """Make, judge, lay out."""
    model = stable_diffusion.load()
    made, judged = [], []
    for number, prompt in enumerate(PROMPTS):
        seed = FIRST_SEED + number
        ordinary = stable_diffusion.generate_image(prompt, model=model, seed=seed)
        made.append(stable_diffusion.generate_image(prompt, model=model, seed=seed, canvas={"panorama": True}))
        judged.append(judge(made[-1], ordinary))
        each = judged[-1]
        print(f"{each.order:8.0f} {each.seam:6.2f} {each.poles:6.2f} {each.mode} {prompt}", flush=True)
    high = WIDTH // 2
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + GAP) - GAP, -(-len(made) // COLUMNS) * (high + GAP) - GAP), "white")
    for number, image in enumerate(made):
        row, column = divmod(number, COLUMNS)
        small = image.convert("RGB").resize((WIDTH, high), Image.Resampling.LANCZOS)
        sheet.paste(small, (column * (WIDTH + GAP), row * (high + GAP)))
    sheet.save(out, quality=82, method=6)
    counts = {
        "sky above ground": sum(each.order < 0 for each in judged),
        "no seam": sum(each.seam <= 1 for each in judged),
        "even poles": sum(each.poles <= 1 for each in judged),
        "opaque": sum(each.mode == "RGB" for each in judged),
    }
    print(f"of {len(judged)}: {counts}; the largest seam {max(each.seam for each in judged):.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
