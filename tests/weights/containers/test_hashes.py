"""The sha256 of a large file is computed once, and again when the file is another one."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from stable_diffusion.user_cache import CACHE_FOLDER
from stable_diffusion.weights.containers import hashes
from stable_diffusion.weights.containers.hashes import hash_in_background, known_sha256
from stable_diffusion.weights.parts import Source


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large, and was last changed a while ago."""
    monkeypatch.setenv(CACHE_FOLDER, str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "LARGE", 100)
    monkeypatch.setattr(hashes, "CHUNK", 64)
    monkeypatch.setattr(hashes, "SETTLED", -1.0)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(range(256)))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_is_remembered_until_the_file_changes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = known_sha256(file)
    assert before == digest(file)
    with monkeypatch.context() as patch:
        patch.setattr(hashes, "_Hashing", None)  # nothing is hashed
        assert known_sha256(file) == before
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(bytes(reversed(range(256))))
    os.utime(file, ns=times)  # the same size and time of change, as some programs leave it
    assert known_sha256(file) == digest(file) != before


def test_a_file_that_was_just_changed_is_not_remembered(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "SETTLED", 3600.0)
    os.utime(file, (time.time(), time.time()))
    assert known_sha256(file) == digest(file)
    assert not list((file.parent / "cache").rglob("*.json"))


def test_what_the_background_began_is_finished_by_who_waits(file: Path) -> None:
    hash_in_background(file)
    assert known_sha256(file) == digest(file)
    source = Source(file)
    source.hash_in_background()
    assert source.short_hash == digest(file)[:10]


def test_what_is_remembered_wrongly_is_computed(file: Path) -> None:
    known_sha256(file)
    (written,) = (file.parent / "cache").rglob("*.json")
    for wrong in ('{"file": [], "sha256": 5}', "", "null", "[" * 100_000):
        written.write_text(wrong)
        assert known_sha256(file) == digest(file)
