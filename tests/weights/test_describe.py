"""What `info` says of networks that are files of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.clip_vision import CLIPVision, CLIPVisionConfig
from stable_diffusion.models.t5 import T5Config, T5Encoder
from stable_diffusion.models.tiny_vae import TinyVAE, TinyVAEConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.weights.containers.hashes import sha256
from stable_diffusion.weights.describe import part_facts
from stable_diffusion.weights.keys import KeyTable
from stable_diffusion.weights.networks.clip import clip_openclip, clip_transformers
from stable_diffusion.weights.networks.clip_vision import clip_vision_openclip, clip_vision_transformers
from stable_diffusion.weights.networks.t5 import t5_transformers
from stable_diffusion.weights.networks.tiny_vae import LAYOUTS, tiny_table
from stable_diffusion.weights.networks.vae import vae_diffusers, vae_ldm

SMALL, SMALL_16 = (VAEConfig(channels=(32, 32), blocks_per_stage=1, latent_channels=count) for count in (4, 16))
CLIP_L, CLIP_H, CLIP_G = (CLIPTextConfig(width=width, layers=1, heads=1, mlp_width=8) for width in (768, 1024, 1280))
T5 = T5Config(vocab_size=5, width=4096, layers=1, heads=1, head_dim=2, mlp_width=3)
TINY = TinyVAEConfig(width=8)
TOWER = CLIPVisionConfig(width=32, layers=1, heads=2, mlp_width=8, image_size=28, projection_dim=6)

Case = tuple[Callable[[], nn.Module], KeyTable, str, str]
CASES: dict[str, Case] = {
    "ldm": (lambda: VAE(SMALL), vae_ldm(SMALL), "autoencoder", "Stable Diffusion 1.x, 2.x or XL"),
    "whole": (lambda: VAE(SMALL), vae_ldm(SMALL).prefixed("first_stage_model."), "autoencoder", "1.x, 2.x or XL"),
    "diffusers": (lambda: VAE(SMALL_16), vae_diffusers(SMALL_16), "autoencoder", "Stable Diffusion 3"),
    "taesd": (lambda: TinyVAE(TINY), tiny_table(TINY, LAYOUTS[1]), "tiny autoencoder", "1.x, 2.x or XL"),
    "clip_l": (lambda: CLIPText(CLIP_L), clip_transformers(CLIP_L), "text encoder", "Stable Diffusion 1.x"),
    "clip_h": (lambda: CLIPText(CLIP_H), clip_openclip(CLIP_H), "text encoder", "Stable Diffusion 2.x"),
    "clip_g": (
        lambda: CLIPText(CLIP_G),
        clip_transformers(CLIP_G),
        "text encoder",
        "the second of Stable Diffusion XL",
    ),
    "t5": (lambda: T5Encoder(T5), t5_transformers(T5), "text encoder", "T5-XXL"),
    "tower": (lambda: CLIPVision(TOWER), clip_vision_transformers(TOWER), "CLIP image tower", "IP-Adapters"),
    "openclip": (
        lambda: CLIPVision(TOWER),
        clip_vision_openclip(TOWER).prefixed("visual."),
        "CLIP image tower",
        "IP-Adapters",
    ),
}


def write(path: Path, network: nn.Module, table: KeyTable) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in table.invert(network.state_dict()).items()}, path)
    return path


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_file_is(case: Case, tmp_path: Path) -> None:
    build, table, kind, family = case
    network = build()
    path = write(tmp_path / "a.safetensors", network, table)
    found = part_facts(path)
    assert found is not None and next(iter(found)) == "kind"
    assert found["kind"] == kind and family in found["for"] and found["use"].startswith("--")
    assert found["parameters"] == {"network": sum(tensor.numel() for tensor in network.state_dict().values())}
    assert (
        found["dtype"] == "float32" and found["hash"] == sha256(path) and found["hash"].startswith(found["short_hash"])
    )
    assert "hash" not in (part_facts(path, hashes=False) or {})


def test_the_folder_of_one_component(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    write(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", VAE(SMALL), vae_diffusers(SMALL))
    assert part_facts(tmp_path / "vae") is None  # without a config it is a folder of files
    (tmp_path / "vae" / "config.json").write_text("{}")
    found = part_facts(tmp_path / "vae")
    assert found is not None and found["kind"] == "autoencoder" and "hash" not in found
    (tmp_path / "vae" / "model_index.json").write_text(json.dumps({}))
    assert part_facts(tmp_path / "vae") is None


@pytest.mark.parametrize(
    "extra",
    [
        {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3)},
        {"joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(3, 1)},
        {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": torch.zeros(1, 1)},
    ],
)
def test_a_file_with_a_denoiser_is_no_part(extra: dict[str, Any], tmp_path: Path) -> None:
    state = vae_ldm(SMALL).prefixed("first_stage_model.").invert(VAE(SMALL).state_dict())
    save_file({**{name: tensor.contiguous() for name, tensor in state.items()}, **extra}, tmp_path / "a.safetensors")
    assert part_facts(tmp_path / "a.safetensors") is None


def test_other_files_are_no_part(tmp_path: Path) -> None:
    save_file({"layer.weight": torch.zeros(3, 3)}, tmp_path / "a.safetensors")
    assert part_facts(tmp_path / "a.safetensors") is None
