"""What every section works with: the model's painter, the eye, the pack, and how much to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data.pack import Record
from ..data.similarity import over_white
from ..pipeline.models import StableDiffusion
from .clip_eye import ClipEye
from .pack import PicturePack, resized
from .painter import Painter
from .report import LeftOut, Shown
from .sections.questions import prompt_pairs
from .tower import CHUNK, Eye, Seen


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured. `quick` fits in 20 minutes on two cores for the embedded model."""

    seed: int = 0
    painted: int = 100
    chinese: int = 40
    held_out: int = 440
    training: int = 3000
    reconstructed: int = 48
    colour: int = 30
    counting: int = 15
    relations: int = 16
    style: int = 15
    diverse_prompts: int = 4
    diverse_seeds: int = 8
    sensitive: int = 2
    timed: int = 3
    precisions: tuple[str, ...] = ("int8", "bfloat16")
    samplers: tuple[str, ...] = ("euler", "heun", "dpmpp_2m", "uni_pc", "euler_ancestral")


QUICK = Plan()
FULL = Plan(
    painted=1000,
    chinese=300,
    held_out=10_000,
    training=1_000_000,
    reconstructed=500,
    colour=100,
    counting=99,
    relations=16,
    style=100,
    diverse_prompts=16,
    diverse_seeds=16,
    sensitive=8,
    timed=8,
    precisions=("int8", "bfloat16", "float16"),
)


@dataclass(eq=False, kw_only=True)
class Bench:
    painter: Painter
    plan: Plan
    pack: PicturePack | None = None
    eye: Eye | None = None
    clip: ClipEye | None = None
    left_out: list[LeftOut] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    _seen: dict[tuple[int, int], Seen] = field(default_factory=dict)
    _seen_by_clip: dict[str, Tensor] = field(default_factory=dict)

    @property
    def model(self) -> StableDiffusion:
        return self.painter.model

    def skip(self, what: str, why: str) -> None:
        self.left_out.append(LeftOut(what=what, why=why))

    def show(
        self, section: str, title: str, captions: list[str], pictures: Tensor, *, together: int = 1, limit: int = 24
    ) -> None:
        """Keep up to `limit` groups of `together` pictures [N * together, C, H, W] with their captions [N]."""
        kept = range(0, len(captions), max(1, -(-len(captions) // limit)))
        groups = pictures.view(len(captions), together, *pictures.shape[1:])[list(kept)]
        self.shown.append(
            Shown(
                section=section,
                title=title,
                captions=tuple(captions[k] for k in kept),
                pictures=groups.flatten(0, 1).clone(),
                together=together,
            )
        )

    def prompts(self) -> list[tuple[str, str]]:
        """(English, Chinese) prompts: captions of held-out records, no two alike; without any a fixed list."""
        records = [] if self.pack is None else self.pack.distinct("heldout", self.plan.painted)
        if not records:
            return prompt_pairs()[: self.plan.painted]
        return [(str(record.caption), str(record.chinese_caption)) for record in records]

    def real(self, records: Sequence[Record], size: int | None = None) -> Tensor:
        """Pictures of the pack as the model could make them: over white where it has no alpha."""
        assert self.pack is not None
        pictures = self.pack.pictures(records)
        pictures = pictures if size is None else resized(pictures, size)
        return pictures if self.model.parts.vae.config.image_channels == 4 else over_white(pictures)

    def seen(self, split: str, count: int) -> Seen:
        """What the eye sees in the pictures of a split."""
        assert self.pack is not None
        return self.look(self.pack.choose(split, count))

    def look(self, records: Sequence[Record]) -> Seen:
        """What the eye sees in these pictures of the pack; each is looked at once."""
        assert self.eye is not None
        missing = [record for record in records if (record.shard, record.row) not in self._seen]
        for rows, pictures in self._chunks(missing):
            for record, *seen in zip(rows, *self.eye.look(pictures), strict=True):
                self._seen[record.shard, record.row] = Seen(*seen)
        return Seen(*map(torch.stack, zip(*(self._seen[record.shard, record.row] for record in records), strict=True)))

    def seen_by_clip(self, split: str, count: int) -> Tensor:
        """CLIP's embeddings [N,P] of the pictures of a split, remembered."""
        assert self.pack is not None and self.clip is not None
        if split not in self._seen_by_clip:
            chunks = self._chunks(self.pack.choose(split, count))
            self._seen_by_clip[split] = torch.cat([self.clip.look(pictures) for _, pictures in chunks])
        return self._seen_by_clip[split]

    def _chunks(self, records: Sequence[Record]) -> Iterator[tuple[Sequence[Record], Tensor]]:
        """The pictures of these records, a few at a time, with progress."""
        for start in range(0, len(records), CHUNK):
            self.painter.report("looking at real pictures", start, len(records))
            rows = records[start : start + CHUNK]
            yield rows, self.real(rows)
