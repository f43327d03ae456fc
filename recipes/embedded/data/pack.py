"""The pack on disk: shards of pictures and caption records, and `pack.json` that lists them with their sources.

A shard is a folder with `images.npy` (uint8 [N, S, S, 4], RGBA, straight alpha) and `records.jsonl` (N lines). Files
are written under another name and moved into place, so a reader never sees half a shard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .render import Picture


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)


def write_images(folder: Path, pictures: Iterable[Picture]) -> int:
    """`images.npy` of a shard from a stream of equal pictures, written atomically; returns how many there were.

    Only one picture is in memory at a time. The header comes first in a .npy file and holds the count, which is known
    last: NumPy pads headers so that the count can grow, and the header is written again at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary, count, shape = folder / "images.tmp.npy", 0, ()
    with temporary.open("wb") as file:
        for picture in pictures:
            if count == 0:
                shape = picture.shape
                start = write_header(file, 0, shape)
            if picture.shape != shape or picture.dtype != np.uint8:
                raise ValueError(f"picture {count} is {picture.dtype} {picture.shape}, the first is uint8 {shape}")
            file.write(np.ascontiguousarray(picture).tobytes())
            count += 1
        if count == 0:
            raise ValueError(f"shard {folder.name!r} has no pictures")
        if write_header(file, count, shape) != start:
            raise ValueError(f"{count} pictures are more than the header of {temporary.name} can say")
    os.replace(temporary, folder / "images.npy")
    return count


def write_header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> int:
    """The .npy header of uint8 [count, *shape] at the start of a file; returns its length."""
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


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
