"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stable_diffusion.errors import InvalidRequest, ModelFileError
from stable_diffusion.weights.containers.atomic import atomic_file, atomic_folder


def test_a_file_is_there_once_it_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "new" / "a"
    with atomic_file(place) as file:
        file.write(b"half")
        assert not place.exists()
    assert place.read_bytes() == b"half" and len(list(place.parent.iterdir())) == 1


def test_an_interrupt_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "a") as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_one_sentence_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFileError, match=r"No space left on device.*nothing was changed"):
        with atomic_file(tmp_path / "a") as file:
            file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_never_replaces_another(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "b") as folder:
            (folder / "x").write_text("1")
            raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with atomic_folder(tmp_path / "b") as folder:
        (folder / "x").write_text("1")
    with pytest.raises(InvalidRequest, match="exists; give a name that is free"), atomic_folder(tmp_path / "b"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["b"] and (tmp_path / "b" / "x").read_text() == "1"
