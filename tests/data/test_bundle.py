"""A small file of pictures: what goes in comes out, and what does not fit is refused in one sentence."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stable_diffusion.data.bundle import Bundle, write_bundle
from stable_diffusion.data.pack import Record
from stable_diffusion.errors import InvalidRequest

RECORD = Record(0, 0, "a/0", "object", "cat", "flat", None, "somewhere", "heldout", ("a cat", "one cat"), ("猫",))
SOURCES = [{"name": "somewhere", "licence": "MIT"}]


def pictures(count: int = 3, size: int = 20) -> np.ndarray:
    random = np.random.default_rng(1)
    made = random.integers(0, 256, (count, size, size, 4), dtype=np.uint8)
    made[..., 3] = random.choice([0, 128, 255], (count, size, size))
    return made


def written(path: Path, count: int = 3) -> Path:
    with path.open("wb") as file:
        write_bundle(file, pictures(count), [RECORD] * count, SOURCES)
    return path


def test_pictures_and_records_come_back(tmp_path: Path) -> None:
    bundle = Bundle(written(tmp_path / "few.zip"))
    before, after = pictures(), bundle.rows(bundle.records)
    seen = before[..., 3] > 0
    assert np.array_equal(before[..., 3], after[..., 3]) and np.array_equal(before[seen], after[seen])
    assert bundle.size == 20 and bundle.tokenizer is None and bundle.sources == SOURCES
    assert [record.row for record in bundle.records] == [0, 1, 2]
    assert bundle.records[0].english == ("a cat",) and bundle.records[0].chinese_caption == "猫"
    assert bundle.records[0].colour is None and bundle.records[0].split == "heldout"


def test_equal_pictures_make_equal_bytes(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a.zip"), written(tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()


def changed(path: Path, name: str, content: bytes | None) -> Path:
    """The same file with another entry of that name, or without it."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for item in old.namelist():
            if item != name:
                new.writestr(item, old.read(item))
        if content is not None:
            new.writestr(name, content)
    path.write_bytes(out.getvalue())
    return path


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("2.webp", None, "is not a file of pictures"),
        ("2.webp", b"not a picture", "cannot be read as a file of pictures|is not a file of pictures"),
        ("records.jsonl", b"{}", "is not a file of pictures"),
        ("bundle.json", b'{"format": "other", "size": 20, "sources": []}', "has the format 'other'"),
        ("bundle.json", b'{"format": "stable_diffusion.pictures.v1", "size": 99999, "sources": []}', "99999 pixels"),
        ("bundle.json", b'{"format": "stable_diffusion.pictures.v1", "size": 21, "sources": []}', "expected 21 square"),
        ("bundle.json", b"[]", "is not a file of pictures"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    path = changed(written(tmp_path / "few.zip"), name, content)
    with pytest.raises(InvalidRequest, match=reason):
        Bundle(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(InvalidRequest, match="is not a file of pictures"):
        Bundle(tmp_path / "x.zip")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        Bundle(tmp_path / "nowhere.zip")
