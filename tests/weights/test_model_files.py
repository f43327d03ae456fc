"""The door to model files: what is at a path, told by its bytes, and the sentence where it is not a model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stable_diffusion.errors import BrokenModel, ModelFileError, UnknownModel
from stable_diffusion.weights.containers.hashes import legacy_hash, sha256
from stable_diffusion.weights.containers.open import read_tensors


def test_a_missing_file_names_the_nearest_existing_one(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "dreamlike.safetensors")
    (tmp_path / "notes.txt").write_text("")
    for wrong in ("dreamlke.safetensors", "dreamlike.ckpt"):
        with pytest.raises(ModelFileError, match=r"no file .* did you mean .*dreamlike\.safetensors\?"):
            read_tensors(tmp_path / wrong)
    with pytest.raises(ModelFileError, match="no file or folder") as caught:
        read_tensors(tmp_path / "missing-folder" / "x.safetensors")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_impossible_names_are_one_sentence(name: str) -> None:
    with pytest.raises(ModelFileError):
        read_tensors(name)


def test_a_folder_where_a_file_is_meant(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a folder; a model file is expected"):
        read_tensors(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_tensors(tmp_path / "pipe.safetensors")


FOREIGN = {
    "web page": (b"<!DOCTYPE html><html>sign in</html>", "a web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs pointer"),
    "picture": (b"\x89PNG\r\n\x1a\n0000", "a PNG picture"),
    "text": (b"just some text, longer than eight bytes", "neither a safetensors file nor"),
}


@pytest.mark.parametrize(("content", "says"), FOREIGN.values(), ids=FOREIGN)
def test_foreign_files_are_called_by_their_name(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(UnknownModel, match=says):
        read_tensors(tmp_path / "model.ckpt")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(BrokenModel, match="is empty"):
        read_tensors(tmp_path / "model.safetensors")


def test_the_container_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    values = torch.arange(6.0).reshape(2, 3)
    torch.save({"x": values}, tmp_path / "really_a_pickle.safetensors")
    save_file({"x": values}, tmp_path / "really_safetensors.ckpt")
    for path, kind in ((path, path.stem.split("_")[-1]) for path in tmp_path.iterdir()):
        tensors, _ = read_tensors(path)
        assert torch.equal(tensors["x"], values)
        assert tensors.kind == {"pickle": "torch zip", "safetensors": "safetensors"}[kind]


def test_hashes_are_those_of_the_webui(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(2**20) + b"abc")
    (tmp_path / "abc").write_bytes(b"abc")
    # sha256("abc") is the test vector of FIPS 180-2; the legacy hash starts a mebibyte into the file.
    assert sha256(tmp_path / "abc")[:10] == "ba7816bf8f"
    assert legacy_hash(path) == "ba7816bf"
