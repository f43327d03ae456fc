"""The data pack: pictures mapped into memory, and what is known of each.

A pack is a folder: pack.json {"size", "shards": [{"path", "count"}]}, each shard with images.npy (uint8 [N,S,S,4],
RGBA, straight alpha) and records.jsonl, and tokenizer.json for the captions.
Legend: N records, B batch, S picture size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Record:
    """One picture of a pack: where it lies and what is known of it."""

    shard: int
    row: int
    name: str
    kind: str
    concept: str
    style: str
    colour: str | None
    source: str
    split: str
    english: tuple[str, ...]
    chinese: tuple[str, ...]

    @property
    def caption(self) -> str | None:
        """The first English caption, or None."""
        return self.english[0] if self.english else None

    @property
    def chinese_caption(self) -> str | None:
        """The first Chinese caption, or None."""
        return self.chinese[0] if self.chinese else None


class Pack:
    """Read-only view of a pack folder; pictures stay on disk until asked for.

    InvalidRequest where the folder is no pack, or a shard does not fit its records.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        manifest = self._manifest()
        self.size = int(manifest["size"])
        self.shards: list[NDArray[np.uint8]] = []
        self.records: list[Record] = []
        self.shard_names = [str(shard["path"]) for shard in manifest["shards"]]
        for number, name in enumerate(self.shard_names):
            self._add_shard(number, self.folder / name)

    def _manifest(self) -> dict[str, Any]:
        path = self.folder / "pack.json"
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            return {"size": int(manifest["size"]), "shards": [{"path": item["path"]} for item in manifest["shards"]]}
        except OSError as error:
            raise InvalidRequest(
                f"{self.folder} is not a data pack: cannot read {path} ({error.strerror}); expected a folder with "
                "pack.json"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(f"{path} is not the manifest of a data pack: {error!r}") from None

    def _add_shard(self, number: int, folder: Path) -> None:
        try:
            images = np.load(folder / "images.npy", mmap_mode="r")
            lines = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
            records = [to_record(number, row, json.loads(line)) for row, line in enumerate(lines)]
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
        path = self.folder / TOKENIZER
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def rows(self, records: Sequence[Record]) -> NDArray[np.uint8]:
        """Copies of the pictures of these records, uint8 [B,S,S,4], straight alpha."""
        out = np.empty((len(records), self.size, self.size, 4), dtype=np.uint8)
        for position, record in enumerate(records):
            out[position] = self.shards[record.shard][record.row]
        return out


def to_record(shard: int, row: int, fields: Mapping[str, Any]) -> Record:
    """One line of records.jsonl; KeyError where something that every record has is missing."""
    captions = fields.get("captions") or {}
    return Record(
        shard=shard,
        row=row,
        name=str(fields["id"]),
        kind=str(fields["kind"]),
        concept=str(fields["concept"]),
        style=str(fields["style"]),
        colour=fields.get("colour"),
        source=str(fields["source"]),
        split=str(fields["split"]),
        english=tuple(captions.get("en") or ()),
        chinese=tuple(captions.get("zh") or ()),
    )
