"""What is particular to Stable Diffusion 3 when it is written anew: T5, CLIP-L's vector, adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_checkpoints as tiny
from stable_diffusion.convert import convert
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.weights.load import load_parts

T5, CLIP_L = "text_encoders.t5xxl.transformer.", "text_encoders.clip_l.transformer."


def test_the_vocabulary_lies_beside_the_file(sd3_folder: Path, tmp_path: Path) -> None:
    made = convert(sd3_folder, tmp_path / "out" / "a.safetensors")
    assert len(made.notes) == 1 and "tokenizer_3" in made.notes[0]
    assert load_parts(tmp_path / "out" / "a.safetensors").t5 is not None
    assert not convert(sd3_folder, tmp_path / "out" / "b.safetensors").notes  # it is there already
    other = tmp_path / "out" / "tokenizer_3" / "tokenizer.json"
    other.write_text(other.read_text() + " ")
    with pytest.raises(InvalidRequest, match="vocabulary of another T5"):
        convert(sd3_folder, tmp_path / "out" / "c.safetensors")
    assert not (tmp_path / "out" / "c.safetensors").exists()


def test_t5_is_never_left_out_in_silence(sd3_single: Path, tmp_path: Path) -> None:
    alone = shutil.copy(sd3_single, tmp_path / "a.safetensors")
    with pytest.raises(InvalidRequest, match=r"T5 without its vocabulary.*t5=False"):
        convert(alone, tmp_path / "folder")
    convert(alone, tmp_path / "folder", t5=False)
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text())
    assert index["text_encoder_3"] == index["tokenizer_3"] == [None, None]
    assert not (tmp_path / "folder" / "text_encoder_3").exists() and load_parts(tmp_path / "folder").t5 is None
    convert(alone, tmp_path / "b.safetensors", t5=False)
    before, after = load_file(alone), load_file(tmp_path / "b.safetensors")
    assert set(before) - set(after) == {name for name in before if name.startswith(T5) or name.endswith("logit_scale")}


def test_text_encoders_beside_a_file_go_into_what_is_written(sd3_single: Path, tmp_path: Path) -> None:
    state = load_file(sd3_single)
    save_file({k: v for k, v in state.items() if not k.startswith("text_encoders.")}, tmp_path / "sd3.safetensors")
    for name in ("clip_l", "clip_g"):
        save_file(tiny.under(state, f"text_encoders.{name}.transformer."), tmp_path / f"{name}.safetensors")
    made = convert(tmp_path / "sd3.safetensors", tmp_path / "whole" / "sd3.safetensors")
    assert len(made.notes) == 2 and "clip_l" in made.notes[0]
    after = load_file(tmp_path / "whole" / "sd3.safetensors")
    assert all(torch.equal(state[name], tensor) for name, tensor in after.items())
    assert any(name.startswith(CLIP_L) for name in after)


def test_only_a_projection_that_changes_nothing_is_left_out(sd3_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(sd3_folder, tmp_path / "sd3")
    file = tmp_path / "sd3" / "text_encoder" / "model.safetensors"
    state = load_file(file)
    state["text_projection.weight"][0, 1] = 0.5
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(InvalidRequest, match="no place for the projection of the first text encoder"):
        convert(tmp_path / "sd3", tmp_path / "a.safetensors")
    convert(tmp_path / "sd3", tmp_path / "again")
    again = load_file(tmp_path / "again" / "text_encoder" / "model.safetensors")
    assert torch.equal(again["text_projection.weight"], state["text_projection.weight"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "sd3"]


def test_another_shift_is_said_by_a_folder_alone(sd3_single: Path, tmp_path: Path) -> None:
    convert(sd3_single, tmp_path / "folder", shift=5.0)
    assert load_parts(tmp_path / "folder").schedule.shift == 5.0  # type: ignore[attr-defined]
    with pytest.raises(InvalidRequest, match=r"cannot say that the noise schedule is .*5\.0"):
        convert(tmp_path / "folder", tmp_path / "a.safetensors")


def test_an_adapter_becomes_part_of_the_weights(sd3_folder: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    down, up = (torch.randn(shape, generator=generator) for shape in ((4, 128), (128, 4)))
    layer = "transformer_blocks.0.attn.to_k"
    lora = {f"transformer.{layer}.lora_A.weight": down, f"transformer.{layer}.lora_B.weight": up}
    save_file(lora, tmp_path / "style.safetensors")
    convert(sd3_folder, tmp_path / "styled", loras=[(tmp_path / "style.safetensors", 0.5)])
    weights = "transformer/diffusion_pytorch_model.safetensors"
    before, after = load_file(sd3_folder / weights), load_file(tmp_path / "styled" / weights)
    assert torch.allclose(after[f"{layer}.weight"], before[f"{layer}.weight"] + 0.5 * up @ down, atol=1e-6)
    assert all(torch.equal(after[name], t) for name, t in before.items() if name != f"{layer}.weight")
