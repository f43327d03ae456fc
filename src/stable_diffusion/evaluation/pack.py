"""The pictures of a data pack, as an evaluator sees them: what was held out, and what was trained on.

A pack is a folder: pack.json {"size", "shards": [{"path", "count"}]}, each shard with images.npy (uint8 [N,S,S,4],
RGBA, straight alpha) and records.jsonl, and tokenizer.json for the captions (see docs/training.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import InvalidRequest


@dataclass(frozen=True, kw_only=True)
class Record:
    """One picture: where it lies, what it shows, and the first of its captions in each language (or None)."""

    shard: int
    row: int
    name: str
    concept: str
    style: str
    colour: str | None
    split: str
    english: str | None
    chinese: str | None


class PicturePack:
    """Read-only view of a pack folder; pictures stay on disk until asked for."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / "pack.json"
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            self.size = int(manifest["size"])
            paths = [self.folder / str(shard["path"]) for shard in manifest["shards"]]
        except OSError as error:
            raise InvalidRequest(
                f"{str(folder)!r} is not a data pack: cannot read {path} ({error.strerror}); expected a folder with "
                "pack.json"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(f"{path} is not the manifest of a data pack: {error!r}") from None
        self.shards: list[NDArray[np.uint8]] = []
        self.records: list[Record] = []
        for number, shard in enumerate(paths):
            self._add(number, shard)

    def _add(self, number: int, folder: Path) -> None:
        try:
            images = np.load(folder / "images.npy", mmap_mode="r")
            lines = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
            records = [_record(number, row, json.loads(line)) for row, line in enumerate(lines)]
        except (OSError, ValueError, KeyError) as error:
            raise InvalidRequest(f"shard {folder} of the data pack cannot be read: {error!r}") from None
        expected = (len(records), self.size, self.size, 4)
        if images.shape != expected or images.dtype != np.uint8:
            raise InvalidRequest(f"{folder}/images.npy is {images.dtype} {images.shape}, expected uint8 {expected}")
        self.shards.append(images)
        self.records.extend(records)

    @property
    def tokenizer(self) -> str | None:
        """The text of the pack's tokenizer.json, or None where it has none."""
        path = self.folder / "tokenizer.json"
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def choose(self, split: str, count: int | None = None) -> list[Record]:
        """Records of a split, evenly spaced over the pack where there are more than `count`."""
        return spread([record for record in self.records if record.split == split], count)

    def distinct(self, split: str, count: int | None = None) -> list[Record]:
        """Records of a split with both captions, no two of one concept or caption: each has one answer."""
        seen: set[str] = set()
        kept = []
        for record in self.records:
            marks = {f"concept {record.concept}", f"en {record.english}", f"zh {record.chinese}"}
            if record.split == split and record.english and record.chinese and not marks & seen:
                kept.append(record)
                seen |= marks
        return spread(kept, count)

    def pictures(self, records: Sequence[Record]) -> Tensor:
        """[B,4,S,S] float32 from 0 to 1, straight alpha."""
        out = np.empty((len(records), self.size, self.size, 4), dtype=np.uint8)
        for position, record in enumerate(records):
            out[position] = self.shards[record.shard][record.row]
        return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 255


def _record(shard: int, row: int, fields: dict[str, Any]) -> Record:
    captions = fields.get("captions") or {}
    english, chinese = captions.get("en") or (), captions.get("zh") or ()
    return Record(
        shard=shard,
        row=row,
        name=str(fields["id"]),
        concept=str(fields["concept"]),
        style=str(fields["style"]),
        colour=fields.get("colour"),
        split=str(fields["split"]),
        english=english[0] if english else None,
        chinese=chinese[0] if chinese else None,
    )


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
