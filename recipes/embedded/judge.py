"""`python -m recipes.embedded.judge MODEL --data PACK`: how far a denoiser's pictures are from the real ones.

The mean loss says little: most of it is noise that no network can know. What a picture shows is decided in the first
steps, so two things are measured on pictures of the pack, by their first English caption and one fixed noise each:
the error of the clean estimate at five noise levels, and how far what is painted from pure noise is from the real
picture. A picture that was trained on often enough comes out as itself.

Legend: N records, c h w latent shape.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stable_diffusion.diffusion.denoise import guided, network_denoiser
from stable_diffusion.training.config import DataConfig, StageConfig
from stable_diffusion.training.data import TrainingPack, encode_texts, load_tokenizer, to_network, to_pictures
from stable_diffusion.training.export import join
from stable_diffusion.training.report import save_png, sheet
from stable_diffusion.training.stage import autocast, autocast_network, condition, spread
from stable_diffusion.training.stages.denoiser import integrate
from stable_diffusion.types import Conditioning
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.parts import Parts

LEVELS = (0.3, 0.6, 0.8, 0.95, 1.0)
COUNT, STEPS, GUIDANCE, CHUNK = 48, 12, 2.0, 16
DEVICE = torch.device("cpu")
COLUMNS = 12


@dataclass(frozen=True, kw_only=True)
class Judged:
    """count: records. x0: mean squared error of the clean latent by noise level. painted: the same of the painted
    latent; nearest: for how many of them the nearest of the real latents is their own; pixels: root mean square error
    of the pictures, premultiplied, in [0, 1]."""

    count: int
    x0: Mapping[str, float]
    painted: float
    nearest: int
    pixels: float

    def line(self) -> str:
        levels = "  ".join(f"{level} {error:.3f}" for level, error in self.x0.items())
        return (
            f"x0 at {levels}  painted {self.painted:.3f}  nearest {self.nearest}/{self.count}  pixels {self.pixels:.3f}"
        )


class Judge:
    """Pictures of a pack as a model's latents, with their captions' conditioning; both are made once."""

    def __init__(self, parts: Parts, pack: TrainingPack, rows: NDArray[np.int64]) -> None:
        self.parts, self.config = parts, StageConfig()
        self.size = parts.defaults.width
        records = [pack.records[int(row)] for row in rows]
        self.captions = [record.caption or record.concept for record in records]
        raw = torch.from_numpy(pack.pictures(rows))
        self.pictures = torch.cat([to_network(some, self.size) for some in raw.split(CHUNK)])  # [N, 4, S, S]
        length = parts.clip.config.context_length
        ids = torch.from_numpy(encode_texts(load_tokenizer(pack.folder), [*self.captions, ""], length)).long()
        with torch.no_grad():
            self.real = torch.cat([self._encoded(some) for some in self.pictures.split(CHUNK)])  # [N, c, h, w]
            told = condition(parts.clip, ids, DEVICE)
        self.cond, self.uncond = told.map(lambda t: t[:-1]), told.map(lambda t: t[-1:])
        noise = [torch.randn(self.real.shape[1:], generator=torch.Generator().manual_seed(k)) for k in range(len(rows))]
        self.noise = torch.stack(noise)
        network = autocast_network(parts.unet, DEVICE, self.config)
        self.denoise = network_denoiser(network, parts.schedule, parts.prediction)

    def _encoded(self, pictures: Tensor) -> Tensor:
        with autocast(DEVICE, self.config):
            mean = self.parts.full_vae.encode(pictures).mean
        return self.parts.latents.normalise(mean.float())

    def _chunks(self) -> list[slice]:
        return [slice(start, start + CHUNK) for start in range(0, len(self.real), CHUNK)]

    def _cond(self, part: slice) -> Conditioning:
        return self.cond.map(lambda t: t[part])

    @torch.no_grad()
    def x0_error(self, level: float) -> float:
        """Mean squared error of the clean estimate at one noise level, without guidance."""
        total = 0.0
        for part in self._chunks():
            real, noise = self.real[part], self.noise[part]
            noisy = self.parts.schedule.alpha(torch.tensor(level)) * real + level * noise
            found = self.denoise(noisy, torch.full((len(real),), level), self._cond(part))
            total += float((found - real).square().mean(dim=(1, 2, 3)).sum())
        return total / len(self.real)

    @torch.no_grad()
    def paint(self, guidance: float = GUIDANCE, steps: int = STEPS) -> Tensor:
        """Latents [N,c,h,w] painted from the captions."""
        painted = []
        for part in self._chunks():
            denoise = guided(self.denoise, self._cond(part), self.uncond, guidance)
            painted.append(
                integrate(lambda x, sigma, ask=denoise: ask(x, sigma).x0, self.noise[part], self.parts.schedule, steps)
            )
        return torch.cat(painted)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [N,4,S,S] in [-1, 1], premultiplied."""
        decoded = []
        for some in self.parts.latents.denormalise(latents).split(CHUNK):
            with autocast(DEVICE, self.config):
                decoded.append(self.parts.full_vae.decode(some).float())
        return torch.cat(decoded).clamp(-1, 1)

    def judge(self, guidance: float = GUIDANCE, steps: int = STEPS) -> tuple[Judged, Tensor]:
        """The numbers, and the painted pictures [N,4,S,S]."""
        x0 = {str(level): self.x0_error(level) for level in LEVELS}
        latents = self.paint(guidance, steps)
        pictures = self.decode(latents)
        nearest = torch.cdist(latents.flatten(1), self.real.flatten(1)).argmin(dim=1)
        found = Judged(
            count=len(self.real),
            x0=x0,
            painted=float((latents - self.real).square().mean()),
            nearest=int((nearest == torch.arange(len(nearest))).sum()),
            pixels=float(((pictures - self.pictures) / 2).square().mean().sqrt()),
        )
        return found, pictures

    def sheet(self, pictures: Tensor) -> Image.Image:
        """Rows of painted pictures, each over the row of real ones."""
        rows = []
        for start in range(0, len(pictures), COLUMNS):
            for some in (pictures, self.pictures):
                row = some[start : start + COLUMNS]
                rows.append(torch.cat([row, row.new_full((COLUMNS - len(row), *row.shape[1:]), -1.0)]))
        shown = torch.nn.functional.interpolate(torch.cat(rows), size=(96, 96), mode="area")
        return sheet(to_pictures(shown), columns=COLUMNS)


def model_of(path: str | Path, pack: str | Path) -> Parts:
    """The model of a file, or of a run folder of the denoiser (its averaged weights)."""
    return join(path, tokenizer=pack) if Path(path).is_dir() else load_parts(path)


def drawn(pack: TrainingPack, config: DataConfig) -> NDArray[np.int64]:
    """The records that training draws at all: those of the selection whose weight is not zero."""
    rows = pack.select(config)
    return rows[pack.weights(rows, config) > 0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge a model on records of the pack, in groups; a JSON line on stdout."""
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded.judge", description=__doc__)
    parser.add_argument("model", help="model file, or run folder of the denoiser")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--styles", nargs="*", default=[], help="of these styles only")
    parser.add_argument("--shards", nargs="*", default=[], help="of these shards only")
    parser.add_argument("--concepts", type=Path, help="text file of concepts: of these only")
    parser.add_argument("--count", type=int, default=COUNT, help="records of the group")
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--sheet", type=Path, help="PNG of what was painted, over the real pictures")
    given = parser.parse_args(arguments)
    pack = TrainingPack(given.data)
    concepts = read_concepts(given.concepts) if given.concepts else ()
    config = DataConfig(styles=tuple(given.styles), shards=tuple(given.shards), concepts=concepts)
    judge = Judge(model_of(given.model, given.data), pack, spread(drawn(pack, config), given.count))
    found, pictures = judge.judge(given.guidance, given.steps)
    if given.sheet:
        save_png(judge.sheet(pictures), given.sheet)
    sys.stderr.write(found.line() + "\n")
    sys.stdout.write(json.dumps(rounded(asdict(found))) + "\n")
    return 0


def read_concepts(path: Path) -> tuple[str, ...]:
    """Concept ids of a text file, separated by white space; lines that begin with # are remarks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(name for line in lines if not line.startswith("#") for name in line.split())


def rounded(value: Any) -> Any:
    """Numbers with four decimals, through dicts."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
