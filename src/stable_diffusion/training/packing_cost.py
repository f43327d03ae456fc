"""What fewer bytes per weight cost: the packed model against the one it was packed from, in plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.similarity import SIGNED, psnr
from ..pipeline.generate import generate_image
from ..pipeline.models import StableDiffusion
from ..weights.load import load_parts
from ..weights.parts import Parts
from .config import DataConfig
from .data import TrainingPack, to_network
from .stage import spread

PROMPTS = ("a red apple", "a cat face", "a blue car", "a house", "a beautiful sunset over the ocean", "海上的日落")
CHUNK = 16


@dataclass(frozen=True, kw_only=True)
class PackingCost:
    """reconstruction      PSNR in dB over all channels of held-out pictures through the autoencoder, as it was
    reconstruction_lost    dB of it that packing took (None, like the line above, where no pictures were given)
    painted                mean PSNR in dB between pictures of the same prompts and seeds; infinite where all are equal
    text                   least cosine between pooled texts of the same prompts
    bytes                  of the packed file
    """

    reconstruction: float | None
    reconstruction_lost: float | None
    painted: float
    text: float
    bytes: int

    def lines(self) -> list[str]:
        """For people."""
        found = [f"{self.bytes / 2**20:.1f} MiB", f"texts agree to a cosine of at least {self.text:.5f}"]
        if self.reconstruction is not None:
            found.append(f"reconstruction {self.reconstruction:.2f} dB, packing lost {self.reconstruction_lost:.3f} dB")
        return [*found, f"pictures of {len(PROMPTS)} prompts agree to {self.painted:.1f} dB"]


@torch.no_grad()
def packing_cost(
    parts: Parts, packed: Path, pictures: Tensor | None = None, prompts: Sequence[str] = PROMPTS
) -> PackingCost:
    """Compare `parts` with the file written from them. pictures: [N,4,R,R] premultiplied in [-1,1], or None."""
    before, after = StableDiffusion.from_parts(parts), StableDiffusion.from_parts(load_parts(packed))
    texts = [
        torch.cat([model.text_encoder(prompt).pooled for prompt in prompts])  # type: ignore[misc]
        for model in (before, after)
    ]
    first, second = (None, None) if pictures is None else (reconstruction(m, pictures) for m in (before, after))
    pairs = [[_painted(model, prompt, seed) for model in (before, after)] for seed, prompt in enumerate(prompts)]
    return PackingCost(
        reconstruction=first,
        reconstruction_lost=None if first is None or second is None else first - second,
        painted=sum(_difference(a, b) for a, b in pairs) / len(pairs),
        text=float(F.cosine_similarity(texts[0].float(), texts[1].float(), dim=-1).min()),
        bytes=packed.stat().st_size,
    )


def held_out_pictures(folder: Path, size: int, count: int = 64) -> Tensor:
    """At most `count` held-out pictures of a data pack, evenly spaced: [N,4,size,size] premultiplied in [-1,1]."""
    pack = TrainingPack(folder)
    rows = spread(pack.select(DataConfig(), "heldout"), count)
    return to_network(torch.from_numpy(pack.pictures(rows)), size)


def reconstruction(model: StableDiffusion, pictures: Tensor) -> float:
    """Mean PSNR in dB of pictures [N,4,R,R] through encoder (its mean) and decoder."""
    vae, scores = model.parts.vae, []
    for part in torch.split(pictures, CHUNK):
        scores.append(psnr(vae.decode(vae.encode(part).mean).clamp(-1, 1), part, SIGNED))
    return float(torch.cat(scores).mean())


def _painted(model: StableDiffusion, prompt: str, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(generate_image(prompt, model=model, seed=seed).convert("RGBA"), dtype=np.float64)


def _difference(
    first: np.ndarray[tuple[int, ...], np.dtype[np.float64]], second: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> float:
    """PSNR in dB between two pictures of 0 to 255."""
    error = float(((first - second) ** 2).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
