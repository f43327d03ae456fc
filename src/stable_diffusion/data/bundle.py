"""A handful of a pack's pictures in one small file, to ship: a zip of lossless WebP pictures and their records.

Entries: bundle.json {"format", "size", "sources"}, records.jsonl as in a pack with the first caption of each language,
and 0.webp, 1.webp, ... in the order of the records. Nothing is unpacked to disk, and no name in the file is believed.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InvalidRequest
from .pack import Pack, Record, to_record

FORMAT = "stable_diffusion.pictures.v1"
MOST_PICTURES, LARGEST_SIDE, LONGEST_TEXT = 4096, 1024, 2**24
STAMP = (1980, 1, 1, 0, 0, 0)
"""Of every entry, so that the same pictures make the same bytes."""


class Bundle(Pack):
    """The pictures of such a file, as a pack without tokenizer: all in memory, [N,S,S,4].

    InvalidRequest where the file is none, or its pictures do not fit its records.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = Path(path)
        self.shard_names = [self.folder.stem]
        try:
            with zipfile.ZipFile(self.folder) as file:
                self._read(file)
        except InvalidRequest:
            raise
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be read as a file of pictures ({error.strerror or error})") from None
        except (zipfile.BadZipFile, ValueError, KeyError, TypeError, Image.DecompressionBombError) as error:
            raise InvalidRequest(f"{path} is not a file of pictures: {error!r}") from None

    def _read(self, file: zipfile.ZipFile) -> None:
        about = json.loads(_text(file, "bundle.json"))
        lines = _text(file, "records.jsonl").splitlines()
        self.size = int(about["size"])
        if about["format"] != FORMAT or not 0 < self.size <= LARGEST_SIDE or len(lines) > MOST_PICTURES:
            raise InvalidRequest(
                f"{self.folder} has the format {about['format']!r}, pictures of {self.size} pixels and {len(lines)} of "
                f"them; expected {FORMAT!r}, at most {LARGEST_SIDE} pixels and {MOST_PICTURES} pictures"
            )
        self.sources: list[dict[str, Any]] = list(about["sources"])
        self.records = [to_record(0, row, json.loads(line)) for row, line in enumerate(lines)]
        pixels = np.empty((len(lines), self.size, self.size, 4), dtype=np.uint8)
        for row in range(len(lines)):
            with file.open(f"{row}.webp") as entry, Image.open(entry, formats=["WEBP"]) as picture:
                if picture.size != (self.size, self.size):
                    raise InvalidRequest(f"{self.folder}: picture {row} is {picture.size}, expected {self.size} square")
                pixels[row] = np.asarray(picture.convert("RGBA"))
        self.shards = [pixels]


def write_bundle(
    out: BinaryIO, pictures: NDArray[np.uint8], records: Sequence[Record], sources: Sequence[dict[str, Any]]
) -> None:
    """Write pictures [N,S,S,4] (straight alpha) and their records; `sources` are those entries of a pack.json.

    Colours under full transparency are not kept. The same input gives the same bytes.
    """
    about = {"format": FORMAT, "size": int(pictures.shape[1]), "sources": list(sources)}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        _add(file, "bundle.json", json.dumps(about, ensure_ascii=False, sort_keys=True).encode())
        lines = [json.dumps(_fields(record), ensure_ascii=False, sort_keys=True) for record in records]
        _add(file, "records.jsonl", "\n".join(lines).encode())
        for row, picture in enumerate(pictures):
            content = io.BytesIO()
            Image.fromarray(picture).save(content, format="WEBP", lossless=True, quality=100, method=4)
            _add(file, f"{row}.webp", content.getvalue(), zipfile.ZIP_STORED)


def _fields(record: Record) -> dict[str, Any]:
    """A line of records.jsonl again, with one caption of each language at most."""
    kept = ("kind", "concept", "style", "colour", "source", "split")
    captions = {"en": record.english[:1], "zh": record.chinese[:1]}
    return {"id": record.name, **{name: getattr(record, name) for name in kept}, "captions": captions}


def _add(file: zipfile.ZipFile, name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    file.writestr(zipfile.ZipInfo(name, STAMP), content, method)


def _text(file: zipfile.ZipFile, name: str) -> str:
    """A text entry, if its stated size is one that such a file can have."""
    if file.getinfo(name).file_size > LONGEST_TEXT:
        raise InvalidRequest(f"{name} of {file.filename} has {file.getinfo(name).file_size} bytes, which is too long")
    return file.read(name).decode("utf-8")
