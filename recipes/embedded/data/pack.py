"""The pack on disk: shards of pictures and caption records, and `pack.json` that lists them with their sources.

A shard is a folder with `images.npy` (uint8 [N, S, S, 4], RGBA, straight alpha) and `records.jsonl` (N lines). Files
are written under another name and moved into place, so a reader never sees half a shard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .render import Picture


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)


def write_images(folder: Path, pictures: Sequence[Picture]) -> None:
    """`images.npy` of a shard, written atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "images.tmp.npy"
    np.save(temporary, np.stack(pictures))
    os.replace(temporary, folder / "images.npy")


def write_lines(path: Path, items: Iterable[dict[str, Any]]) -> None:
    """A JSON-lines file, written atomically."""
    write_text(path, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A JSON-lines file as a list."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_pack(folder: Path, size: int, shards: Sequence[str], sources: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`pack.json`, after checking that every shard has as many records as pictures of the right shape."""
    listed = []
    for shard in shards:
        images = np.load(folder / shard / "images.npy", mmap_mode="r")
        count = len(read_lines(folder / shard / "records.jsonl"))
        if images.shape != (count, size, size, 4) or images.dtype != np.uint8:
            raise ValueError(f"shard {shard!r} holds {images.dtype} {images.shape} and {count} records, size is {size}")
        listed.append({"path": shard, "count": count})
    content = {"size": size, "shards": listed, "sources": list(sources)}
    write_text(folder / "pack.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return content
