"""Names that torch.compile, DataParallel, DeepSpeed, FSDP and trainers wrapped are read as the network's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stable_diffusion.weights.containers.open import read_tensors
from stable_diffusion.weights.containers.wrappers import bare_name

LAYER = "down_blocks.0.attentions.0.proj_in.weight"
FLAT = "down_blocks_0_attentions_0_proj_in"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (f"_orig_mod.{LAYER}", LAYER),
        (f"module.{LAYER}", LAYER),
        (f"module._orig_mod.{LAYER}", LAYER),
        (f"_forward_module._orig_mod.module.{LAYER}", LAYER),
        (f"_fsdp_wrapped_module.{LAYER}", LAYER),
        (f"state_dict.state_dict.module.{LAYER}", LAYER),
        ("model.diffusion_model._orig_mod.input_blocks.0.0.weight", "model.diffusion_model.input_blocks.0.0.weight"),
        ("down_blocks.0._orig_mod.attentions.0.module.proj_in.weight", LAYER),
        (f"unet._orig_mod.{LAYER}", f"unet.{LAYER}"),
        (f"lora_unet__orig_mod_{FLAT}.alpha", f"lora_unet_{FLAT}.alpha"),
        ("lora_unet_down_blocks_0__orig_mod_attentions_0_proj_in.alpha", f"lora_unet_{FLAT}.alpha"),
        ("lora_te1_module_text_model_encoder.alpha", "lora_te1_text_model_encoder.alpha"),
        ("lora_te__forward_module_text_model.alpha", "lora_te_text_model.alpha"),
        # what only looks like a wrapper
        ("down_blocks.0.motion_modules.0.weight", "down_blocks.0.motion_modules.0.weight"),
        ("submodule.weight", "submodule.weight"),
        ("lora_unet_down_blocks_0_motion_modules_0.alpha", "lora_unet_down_blocks_0_motion_modules_0.alpha"),
        ("cond_stage_model.model.ln_final.weight", "cond_stage_model.model.ln_final.weight"),
    ],
)
def test_a_name_loses_its_wrappers_and_nothing_else(written: str, meant: str) -> None:
    assert bare_name(written) == meant


def names_read(path: Path, *names: str) -> list[str]:
    save_file({name: torch.full((1,), float(index)) for index, name in enumerate(names)}, path)
    return sorted(read_tensors(path)[0])


def test_model_is_a_wrapper_only_where_it_is_around_all(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    assert names_read(file, "model.conv_in.weight", "model.time_embedding.bias") == [
        "conv_in.weight",
        "time_embedding.bias",
    ]
    assert names_read(file, "model.model.diffusion_model.a", "model.first_stage_model.b") == [
        "first_stage_model.b",
        "model.diffusion_model.a",
    ]
    for kept in (
        ("model.diffusion_model.a", "model.diffusion_model.b"),
        ("model.conv_in.weight", "other.weight"),
        ("model.0.weight", "model.1.sub.0.weight"),
    ):
        assert names_read(file, *kept) == sorted(kept)


def test_a_name_that_is_there_already_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    assert names_read(file, "_orig_mod.a.weight", "a.weight") == ["_orig_mod.a.weight", "a.weight"]
    assert float(read_tensors(file)[0]["a.weight"]) == 1.0
