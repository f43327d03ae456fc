from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stable_diffusion.errors import BrokenModel, InvalidRequest, ModelFileError
from stable_diffusion.training import checkpoint as ckpt


def test_round_trip_and_previous(tmp_path: Path) -> None:
    for step in (1, 2):
        ckpt.save_checkpoint(tmp_path, {"model.a.w": torch.full((2,), float(step))}, {"step": step})
    assert ckpt.read_state(tmp_path / ckpt.NAME) == {"step": 2}
    assert ckpt.read_state(tmp_path / ckpt.PREVIOUS) == {"step": 1}
    assert torch.equal(ckpt.read_tensors(tmp_path / ckpt.NAME, "model.a.")["w"], torch.full((2,), 2.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ckpt.NAME, ckpt.PREVIOUS])


def test_failed_write_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt.save_checkpoint(tmp_path, {"x": torch.zeros(2)}, {"step": 1})

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ModelFileError, match="No space left"):
        ckpt.save_checkpoint(tmp_path, {"x": torch.zeros(2)}, {"step": 2})
    assert ckpt.read_state(tmp_path / ckpt.NAME)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [ckpt.NAME]


def test_shared_memory_is_written_twice(tmp_path: Path) -> None:
    value = torch.arange(3.0)
    path = ckpt.save_checkpoint(tmp_path, {"a": value, "b": value}, {})
    assert torch.equal(ckpt.read_tensors(path)["b"], value)


def test_foreign_and_damaged_files(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, str(tmp_path / "foreign.safetensors"))
    with pytest.raises(ModelFileError, match="not a training checkpoint"):
        ckpt.read_state(tmp_path / "foreign.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(ModelFileError, match="not a readable checkpoint"):
        ckpt.read_state(tmp_path / "cut.safetensors")
    with pytest.raises(InvalidRequest, match="not the folder of a training run"):
        ckpt.load_part(tmp_path, "vae")


def test_load_part_prefers_averaged_weights(tmp_path: Path) -> None:
    tensors = {"model.vae.w": torch.zeros(1), "ema.vae.w": torch.ones(1), "model.text.w": torch.zeros(1)}
    ckpt.save_checkpoint(tmp_path, tensors, {"modules": ["vae", "text"]})
    assert ckpt.load_part(tmp_path, "vae")[0]["w"].item() == 1.0
    assert ckpt.load_part(tmp_path, "text")[0]["w"].item() == 0.0
    with pytest.raises(BrokenModel, match="no module 'unet', only vae, text"):
        ckpt.load_part(tmp_path, "unet")


def test_assign_is_strict() -> None:
    layer = torch.nn.Linear(2, 3)
    with pytest.raises(BrokenModel, match=r"1 missing .*1 unexpected .*1 of another shape"):
        ckpt.assign(layer, {"weight": torch.zeros(2, 2), "extra": torch.zeros(1)}, "layer")
