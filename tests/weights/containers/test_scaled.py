"""Checkpoints of 8-bit floats with scales, in both spellings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny_checkpoints as tiny
from stable_diffusion.errors import BrokenModel
from stable_diffusion.weights.containers.open import read_tensors
from stable_diffusion.weights.describe import inspect
from stable_diffusion.weights.load import load_parts

UNET = "model.diffusion_model."


def packed(weight: Tensor, *, rows: bool) -> tuple[Tensor, Tensor]:
    """(8-bit floats, scale) of a matrix."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 448 if rows else weight.abs().max() / 448
    return (weight / scale).to(torch.float8_e4m3fn), scale


@pytest.mark.parametrize(
    ("scale_end", "input_end", "rows"), [("scale_weight", "scale_input", False), ("weight_scale", "input_scale", True)]
)
def test_a_scaled_checkpoint_is_the_product(scale_end: str, input_end: str, rows: bool, tmp_path: Path) -> None:
    single = tiny.write_single(tiny.SD1, tiny.write_folder(tiny.SD1, tmp_path), tmp_path / "plain.safetensors")
    scaled, product = load_file(single), load_file(single)
    names = [name for name in scaled if name.startswith(UNET) and name.endswith(".weight") and scaled[name].dim() == 2]
    for name in names:
        scaled[name], scale = packed(scaled[name], rows=rows)
        product[name] = scaled[name].float() * scale
        stem = name.removesuffix("weight")
        scaled |= {stem + scale_end: scale, stem + input_end: torch.ones(())}
    scaled[f"{UNET}scaled_fp8"] = torch.empty(0, dtype=torch.float8_e4m3fn)
    save_file(scaled, tmp_path / "scaled.safetensors")
    save_file(product, tmp_path / "product.safetensors")
    found, wanted = (load_parts(tmp_path / f"{name}.safetensors") for name in ("scaled", "product"))
    assert len(names) > 20 and found.family == wanted.family == "sd1"
    assert all(map(torch.equal, found.unet.state_dict().values(), wanted.unet.state_dict().values()))
    assert load_parts(tmp_path / "scaled.safetensors", dtype=torch.bfloat16).unet.time_mlp.linear1.weight.dtype == (
        torch.bfloat16
    )
    assert inspect(tmp_path / "scaled.safetensors", hashes=False)["family"] == "sd1"
    tensors, _ = read_tensors(tmp_path / "scaled.safetensors")
    assert tensors.stored(names[0]) == "float8_e4m3fn" and set(tensors) == set(product)


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (torch.ones(3), r"float32 of shape \[3\]; expected one float, or one for each of 4 rows"),
        (torch.ones(2, 2, 2), r"shape \[2, 2, 2\]"),
        (torch.empty(0), r"shape \[0\]"),
        (torch.ones(1, dtype=torch.int32), "int32"),
    ],
)
def test_a_scale_that_does_not_fit(scale: Tensor, says: str, tmp_path: Path) -> None:
    state = {"a.weight": torch.ones(4, 2).to(torch.float8_e4m3fn), "a.scale_weight": scale}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(BrokenModel, match=says) as caught:
        read_tensors(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """A scale without a weight, or of integers, is some other tensor."""
    state = {
        "a.scale_weight": torch.ones(1),
        "b.weight": torch.ones(2, 2).to(torch.int8),
        "b.weight_scale": torch.ones(2),
    }
    save_file(state, tmp_path / "a.safetensors")
    assert set(read_tensors(tmp_path / "a.safetensors")[0]) == set(state)
