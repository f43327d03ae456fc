"""What `info` says of adapters and embeddings, from names and shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stable_diffusion.weights.adapter_facts import adapter_facts
from stable_diffusion.weights.adapter_keys import group_names, is_adapter, kind_of

KEY = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def lora(stem: str, width: int, rank: int = 4, up: str = "lora_up", down: str = "lora_down") -> dict[str, Tensor]:
    return {f"{stem}.{up}.weight": torch.ones(320, rank), f"{stem}.{down}.weight": torch.ones(rank, width)}


def facts(path: Path, tensors: dict[str, Tensor], **metadata: str) -> dict[str, object]:
    save_file(tensors, path, metadata=metadata or None)
    found = adapter_facts(path)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("stem", "width", "names", "family"),
    [
        (f"lora_unet_{KEY}", 768, "kohya", "Stable Diffusion 1.x"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 2048, "single files", "Stable Diffusion XL"),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", 1024, "diffusers", "Stable Diffusion 2.x"),
        ("base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", 768, "PEFT", "1.x"),
        ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k", 64, "single files", "width 64"),
        ("unet.down.0.transformers.0.blocks.0.cross_attention.key", 768, "own names", "Stable Diffusion 1.x"),
    ],
)
def test_styles_and_families(stem: str, width: int, names: str, family: str, tmp_path: Path) -> None:
    found = facts(tmp_path / "a.safetensors", lora(stem, width))
    assert found["kind"] == "adapter" and found["adapter"] == "LoRA" and found["rank"] == "4"
    assert names in str(found["names"]) and family in str(found["for"])
    assert found["networks"] == {"denoiser": 1, "text encoder": 0} and found["guesses"] == []


def test_what_the_header_tells(tmp_path: Path) -> None:
    tensors = {**lora("lora_unet_x", 8, 2), **lora("lora_te_text_model_encoder_layers_0_mlp_fc1", 8, 8)}
    found = facts(tmp_path / "a.safetensors", tensors, ss_base_model_version="sdxl_base_v1-0", ss_output_name="ink")
    assert (found["for"], found["title"], found["rank"]) == ("Stable Diffusion XL", "ink", "2 to 8")
    assert found["networks"] == {"denoiser": 1, "text encoder": 1}
    found = facts(tmp_path / "b.safetensors", tensors)
    assert found["for"] == "" and found["guesses"] == ["nothing in the file says which models it is for"]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), "LoHa"),
        (("lokr_w1", "lokr_w2_a", "lokr_w2_b"), "LoKr"),
        (("a1.weight", "a2.weight", "b1.weight", "b2.weight"), "GLoRA"),
        (("weight", "on_input"), "IA3"),
        (("diff", "diff_b"), "full difference"),
        (("w_norm", "b_norm"), "norm"),
        (("lora_up.weight", "lora_down.weight", "dora_scale"), "DoRA"),
        (("oft_blocks",), "OFT"),
    ],
)
def test_kinds(names: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    found = facts(tmp_path / "a.safetensors", {f"lora_unet_mid_block_x.{name}": torch.ones(4, 4) for name in names})
    assert found["adapter"] == kind and found["unknown_tensors"] == 0


def test_embeddings(tmp_path: Path) -> None:
    found = facts(tmp_path / "word.safetensors", {"emb_params": torch.ones(5, 768)})
    assert found["kind"] == "textual inversion embedding"
    assert (found["vectors"], found["widths"], found["for"]) == (5, [768], "Stable Diffusion 1.x")
    found = facts(tmp_path / "xl.safetensors", {"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)})
    assert (found["vectors"], found["for"]) == (2, "Stable Diffusion XL")


def test_models_are_not_adapters(tmp_path: Path) -> None:
    names = ("model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.input_blocks.0.0.bias")
    save_file({name: torch.ones(4, 4, 3, 3) for name in names}, tmp_path / "model.safetensors")
    assert adapter_facts(tmp_path / "model.safetensors") is None
    assert adapter_facts(tmp_path) is None
    assert not is_adapter(["a.weight", "b.weight", "c.lora_up.weight"])


def test_grouping() -> None:
    grouped = group_names(
        ["a.lora_up.weight", "a.lora_down.weight", "a.alpha", "b.weight", "b.on_input", "c.weight", ".alpha"]
    )
    assert {stem: sorted(what) for stem, what in grouped.groups.items()} == {
        "a": ["alpha", "down", "up"],
        "b": ["ia3", "on_input"],
    }
    assert set(grouped.leftovers) == {"c.weight", ".alpha"}
    assert kind_of(grouped.groups["a"]) == "LoRA" and kind_of({"up"}) is None
