"""Folders that PEFT wrote: only the config says how much of a LoHa or LoKr is added; against PEFT's merged weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import QUERY, factors, shapes
from torch import nn

from stable_diffusion.adapters.file import read_adapter
from stable_diffusion.adapters.formulas import delta
from stable_diffusion.pipeline.models import StableDiffusion

peft = pytest.importorskip("peft")

CONFIGS = {
    "LoHa": peft.LoHaConfig(r=4, alpha=10, target_modules=["0", "1"]),
    "LoHa with cores": peft.LoHaConfig(r=4, alpha=10, use_effective_conv2d=True, target_modules=["0", "1"]),
    "LoHa by layer": peft.LoHaConfig(r=4, alpha=3, alpha_pattern={"1": 7}, target_modules=["0", "1"]),
    "LoKr": peft.LoKrConfig(r=2, alpha=6, target_modules=["0", "1"]),
    "LoKr of thin matrices": peft.LoKrConfig(r=2, alpha=6, decompose_both=True, target_modules=["0", "1"]),
    "LoKr of whole matrices": peft.LoKrConfig(r=64, alpha=16, rank_pattern={"1": 40}, target_modules=["0", "1"]),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_difference_is_that_of_the_weights_that_peft_merges(config: Any, tmp_path: Path) -> None:
    torch.manual_seed(4)
    base = nn.Sequential(nn.Linear(48, 32), nn.Conv2d(24, 32, 3))
    original = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = peft.get_peft_model(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.3
    model.save_pretrained(tmp_path)
    merged = model.merge_and_unload().state_dict()
    read = read_adapter(tmp_path)
    assert len(read.groups) == 2 and not read.unknown
    for layer in ("0", "1"):
        weight = original[f"{layer}.weight"]
        group = read.groups[f"base_model.model.{layer}"]
        ours = delta(group.tensors, weight, alpha=group.alpha)
        torch.testing.assert_close(ours, merged[f"{layer}.weight"] - weight, rtol=1e-4, atol=1e-5)


def test_a_pickled_folder_has_its_config_too(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    """As PEFT before 0.6 wrote folders."""
    up, down = factors(shapes(tiny_model)[QUERY], 0)
    stem = f"base_model.model.{QUERY}"
    folder = tmp_path / "mine"
    folder.mkdir()
    torch.save({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, folder / "adapter_model.bin")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 6}))
    weight = tiny_model.parts.unet.get_parameter("down.0.transformers.0.blocks.0.cross_attention.query.weight")
    before = weight.detach().clone()
    for path in (folder, folder / "adapter_model.bin"):
        with tiny_model.attach(path) as attachment:
            assert attachment.name == "mine"
            torch.testing.assert_close(weight.detach(), before + 3 * up @ down, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [{"r": 0, "alpha": 3}, {"r": "4", "alpha": 3}, {"r": 2, "alpha": float("nan")}, {}])
def test_settings_that_are_none_are_left_out(config: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"a.lokr_w1": torch.ones(2, 3), "a.lokr_w2": torch.ones(4, 2)}, tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert torch.equal(read_adapter(tmp_path).groups["a"].tensors["lokr_w1"], torch.ones(2, 3))
