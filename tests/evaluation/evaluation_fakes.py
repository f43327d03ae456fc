"""A painter, an eye and a pack whose every answer is known: they stand where the real ones are plugged in.

A picture *is* its sentence: `picture_of` fills it with random numbers that the sentence seeds, and the eye reads both
alike. So a painter that follows its prompt is one that returns `picture_of(prompt)`, and all wrong ones can be built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stable_diffusion.errors import StableDiffusionError
from stable_diffusion.evaluation.bench import Bench, Plan
from stable_diffusion.evaluation.pack import PicturePack
from stable_diffusion.evaluation.painter import Painter
from stable_diffusion.evaluation.sections.questions import nouns
from stable_diffusion.evaluation.tower import Seen
from stable_diffusion.weights.parts import Defaults

SIDE = 8
GREY = 128 / 255
"""The middle, in steps of 8 bits."""

Make = Callable[[str, int, Mapping[str, Any]], Tensor]
"""(prompt, seed, settings) -> picture [4,SIDE,SIDE]."""


def picture_of(sentence: str, seed: int = 0) -> Tensor:
    """[4,SIDE,SIDE] in steps of 8 bits; pictures of different sentences or seeds are almost orthogonal to the eye."""
    digest = hashlib.sha256(f"{seed} {sentence}".encode()).digest()
    random = np.random.default_rng(list(digest))
    return torch.from_numpy(random.integers(0, 256, (4, SIDE, SIDE)).astype(np.float32) / 255)


def axis(*numbers: int) -> Tensor:
    """[4,SIDE,SIDE]: mid-grey but for these values, so that different numbers are exactly orthogonal to the eye."""
    flat = torch.full((4 * SIDE * SIDE,), GREY)
    flat[list(numbers)] = 1.0
    return flat.view(4, SIDE, SIDE)


class FakeEye:
    """Sees every pixel; `meaning` maps words to the sentence that they mean (itself by default)."""

    name, hash, size = "known", None, SIDE

    def __init__(self, meaning: Mapping[str, str] | None = None) -> None:
        self.meaning = dict(meaning or {})

    def look(self, pictures: Tensor) -> Seen:
        """Embeddings are all pixels around mid-grey, features the channels' means."""
        return Seen(F.normalize(pictures.flatten(1) - GREY, dim=1), pictures.mean(dim=(2, 3)))

    def read(self, sentences: Sequence[str]) -> Tensor:
        return self.look(torch.stack([picture_of(self.meaning.get(text, text)) for text in sentences])).embedding


class BlindEye(FakeEye):
    """All sentences are one to it."""

    def read(self, sentences: Sequence[str]) -> Tensor:
        return super().read(["the same"] * len(sentences))


def identity_autoencoder(error: float = 0.0, alpha_error: float = 0.0) -> SimpleNamespace:
    """A model of which only the autoencoder is asked: encoder and decoder change nothing, but for a known error."""

    def decode(latent: Tensor) -> Tensor:
        picture = (latent + 1) / 2
        colour, alpha = picture[:, :3], picture[:, 3:]
        straight = torch.where(alpha > 0, colour / alpha.clamp(min=1e-6), 0.0)
        return torch.cat([straight + error, alpha + alpha_error], dim=1)

    return SimpleNamespace(
        parts=SimpleNamespace(vae=SimpleNamespace(config=SimpleNamespace(image_channels=4)), source=None),
        defaults=Defaults(width=SIDE, height=SIDE, steps=2, guidance=1.0, sampler="euler", schedule="karras"),
        factor=1,
        device=torch.device("cpu"),
        dtype=torch.float32,
        image_encoder=lambda picture: picture,
        image_decoder=SimpleNamespace(straight=decode),
    )


class FakePainter(Painter):
    """Paints with a function; keeps the real painter's memory, orders and treatment of numbers that overflow."""

    def __init__(self, make: Make, model: Any = None) -> None:
        super().__init__(model=identity_autoencoder() if model is None else model)
        self.make = make

    def _painted(self, prompt: str, seed: int, *, count: int = 1, **settings: Any) -> Tensor:
        """`settings` of the function: those of the request, with `count` and, where it was given, `batch`."""
        pictures = [self.make(prompt, seed + k, {**settings, "count": count}) for k in range(count)]
        return torch.stack(pictures)


def obedient(prompt: str, seed: int, settings: Mapping[str, Any]) -> Tensor:
    return picture_of(prompt)


def ignorant(prompt: str, seed: int, settings: Mapping[str, Any]) -> Tensor:
    return picture_of("always this")


def speaks_chinese(make: Make, pairs: Mapping[str, str]) -> Make:
    """A painter that does with a Chinese prompt what it does with its English twin."""
    return lambda prompt, seed, settings: make(pairs.get(prompt, prompt), seed, settings)


def noun_pairs() -> dict[str, str]:
    """Chinese -> English: the prompts that are used where no pack is given."""
    return {noun.chinese: noun.english for noun in nouns()} | {noun.bare_chinese: noun.bare for noun in nouns()}


def record(number: int, split: str, english: str, **more: Any) -> dict[str, Any]:
    fields = {"id": f"{split}/{number}", "source": "made", "kind": "object", "concept": english, "style": "none"}
    captions = {"en": [english], "zh": [f"中 {english}"]}
    return {**fields, "colour": None, "split": split, "captions": captions, **more}


def write_pack(folder: Path, items: Sequence[tuple[dict[str, Any], Tensor]]) -> PicturePack:
    """A pack of (record, picture [4,SIDE,SIDE])."""
    (folder / "all").mkdir(parents=True)
    pixels = torch.stack([picture for _, picture in items]).permute(0, 2, 3, 1)
    np.save(folder / "all" / "images.npy", (pixels * 255).round().to(torch.uint8).numpy())
    lines = [json.dumps(fields, ensure_ascii=False) for fields, _ in items]
    (folder / "all" / "records.jsonl").write_text("\n".join(lines), encoding="utf-8")
    manifest = {"size": SIDE, "shards": [{"path": "all", "count": len(items)}]}
    (folder / "pack.json").write_text(json.dumps(manifest))
    return PicturePack(folder)


def bench(make: Make, plan: Plan, *, pack: PicturePack | None = None, eye: FakeEye | None = None) -> Bench:
    return Bench(painter=FakePainter(make), plan=plan, pack=pack, eye=eye)  # type: ignore[arg-type]


def failing(*_: Any, **__: Any) -> Any:
    raise StableDiffusionError("the model's numbers overflowed")
