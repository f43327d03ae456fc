"""The pictures of a data pack, as an evaluator sees them: what was held out, and what was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.bundle import Bundle
from ..data.pack import Pack, Record


class PicturePack:
    """Chosen records and pictures of a pack: a folder, or a file of few pictures (`data.bundle`).

    InvalidRequest where there is neither at the path.
    """

    def __init__(self, path: str | Path) -> None:
        self.pack = Bundle(path) if Path(path).is_file() else Pack(path)
        self.name, self.size, self.records = Path(path).name, self.pack.size, self.pack.records

    @property
    def tokenizer(self) -> str | None:
        """The text of the pack's tokenizer.json, or None where it has none."""
        return self.pack.tokenizer

    def choose(self, split: str, count: int | None = None) -> list[Record]:
        """Records of a split, evenly spaced over the pack where there are more than `count`."""
        return spread([record for record in self.records if record.split == split], count)

    def distinct(self, split: str, count: int | None = None) -> list[Record]:
        """Records of a split with both captions, no two of one concept or caption: each has one answer."""
        seen: set[str] = set()
        kept = []
        for record in self.records:
            english, chinese = record.caption, record.chinese_caption
            marks = {f"concept {record.concept}", f"en {english}", f"zh {chinese}"}
            if record.split == split and english and chinese and not marks & seen:
                kept.append(record)
                seen |= marks
        return spread(kept, count)

    def pictures(self, records: Sequence[Record]) -> Tensor:
        """[B,4,S,S] float32 from 0 to 1, straight alpha."""
        return torch.from_numpy(self.pack.rows(records)).permute(0, 3, 1, 2).float() / 255


def spread(records: list[Record], count: int | None) -> list[Record]:
    """At most `count` of them, evenly spaced."""
    if count is None or count >= len(records):
        return records
    return [records[(2 * k + 1) * len(records) // (2 * count)] for k in range(count)]


def resized(pictures: Tensor, size: int) -> Tensor:
    """Straight RGBA [B,4,H,W] at size x size; averaged after premultiplication, so hidden colours never bleed."""
    if pictures.shape[-2:] == (size, size):
        return pictures
    alpha = pictures[:, 3:]
    premultiplied = torch.cat([pictures[:, :3] * alpha, alpha], dim=1)
    shrink = size < min(pictures.shape[-2:])
    if shrink:
        small = F.interpolate(premultiplied, size=(size, size), mode="area")
    else:
        small = F.interpolate(premultiplied, size=(size, size), mode="bicubic").clamp(0, 1)
    alpha = small[:, 3:]
    colour = torch.where(alpha > 0.5 / 255, small[:, :3] / alpha.clamp(min=0.5 / 255), 0.0)
    return torch.cat([colour.clamp(0, 1), alpha], dim=1)
