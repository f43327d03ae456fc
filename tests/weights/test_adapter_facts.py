"""What `info` says of adapters and embeddings, from names and shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stable_diffusion.adapters.describe import adapter_facts
from stable_diffusion.adapters.keys import group_names, is_adapter, kind_of

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


def of_width(width: int) -> dict[str, dict[str, Tensor]]:
    """Kind -> the group of a matrix [640, width] by which its width can be told."""
    return {
        "LoKr": {"lokr_w1": torch.ones(16, 16), "lokr_w2": torch.ones(40, width // 16)},
        "LoKr of thin factors": {
            "lokr_w1_a": torch.ones(16, 2),
            "lokr_w1_b": torch.ones(2, 8),
            "lokr_w2_a": torch.ones(40, 4),
            "lokr_w2_b": torch.ones(4, width // 8),
        },
        "GLoRA": {
            "a1.weight": torch.ones(width, 4),
            "a2.weight": torch.ones(4, width),
            "b1.weight": torch.ones(640, 4),
            "b2.weight": torch.ones(4, width),
        },
        "GLoRA of before": {
            "a1.weight": torch.ones(4, width),
            "a2.weight": torch.ones(width, 4),
            "b1.weight": torch.ones(4, width),
            "b2.weight": torch.ones(640, 4),
        },
        "OFT": {"oft_R.weight": torch.ones(width // 32, 32 * 31 // 2)},
        "IA3": {"weight": torch.ones(width), "on_input": torch.tensor(1.0)},
    }


@pytest.mark.parametrize("kind", of_width(768))
@pytest.mark.parametrize(("width", "family"), [(768, "1.x"), (1024, "2.x"), (2048, "XL")])
def test_a_width_that_follows_from_several_sides(kind: str, width: int, family: str, tmp_path: Path) -> None:
    other = {"lora_unet_mid_block_attentions_0_proj_in.lokr_w1": torch.ones(2, 2),
             "lora_unet_mid_block_attentions_0_proj_in.lokr_w2": torch.ones(3, 5)}  # fmt: skip
    group = {f"lora_unet_{KEY}.{name}": tensor for name, tensor in of_width(width)[kind].items()}
    found = facts(tmp_path / "a.safetensors", {**other, **group})
    assert found["for"] == f"Stable Diffusion {family}"
    assert found["guesses"] == [f"that it is for Stable Diffusion {family} is a guess from the shapes of its layers"]
    told = facts(tmp_path / "b.safetensors", {**other, **group}, ss_base_model_version="sd_v2_768_v")
    assert (told["for"], told["guesses"]) == ("Stable Diffusion 2.x", [])


TEXT_LAYER = "text_model_encoder_layers_0_self_attn_q_proj"


@pytest.mark.parametrize(
    ("kind", "group"),
    [
        ("OFT", {"oft_blocks": lambda rows: torch.ones(8, rows // 8, rows // 8)}),
        ("BOFT", {"oft_blocks": lambda rows: torch.ones(3, 8, rows // 8, rows // 8)}),
        ("IA3", {"weight": lambda rows: torch.ones(rows), "on_input": lambda rows: torch.tensor(0.0)}),
        ("LoKr", {"lokr_w1": lambda rows: torch.ones(8, 8), "lokr_w2": lambda rows: torch.ones(rows // 8, rows // 8)}),
    ],
)
@pytest.mark.parametrize(
    ("layers", "rows", "family"),
    [
        (("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",), 320, "1.x or 2.x"),
        (("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",), 320, "1.x or 2.x"),
        (("lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn1_to_q",), 640, "XL"),
        (("lora_unet_middle_block_1_transformer_blocks_9_attn1_to_q",), 1280, "XL"),
        (("unet.mid_block.attentions.0.transformer_blocks.9.attn1.to_q",), 1280, "XL"),
        ((f"lora_te_{TEXT_LAYER}",), 768, "1.x"),
        ((f"lora_te_{TEXT_LAYER}", "lora_unet_down_blocks_1_attentions_0_proj_in"), 1024, "2.x"),
        ((f"lora_te1_{TEXT_LAYER}",), 768, "XL or 3"),
        (("lora_unet_joint_blocks_0_x_block_attn_qkv",), 1536, "3"),
        (("transformer.transformer_blocks.0.attn.to_q",), 1536, "3"),
        (("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",), 640, ""),
    ],
)
def test_adapters_of_rows_are_told_by_their_layers(
    kind: str, group: dict[str, Callable[[int], Tensor]], layers: tuple[str, ...], rows: int, family: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    tensors = {f"{layer}.{name}": make(rows) for layer in layers for name, make in group.items()}
    found = facts(tmp_path / "a.safetensors", tensors)
    assert found["adapter"] == kind and found["for"] == (f"Stable Diffusion {family}" if family else "")
    (guess,) = found["guesses"] or [""]
    if layers[0].startswith("lora_unet_joint"):
        assert not guess  # no other model has such layers
    else:
        assert ("is a guess from the" in guess) == bool(family) and (family in guess or not family)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 0), (1, 6), (2, 7), (2, 3, 4, 5, 6)], ids=str)
@pytest.mark.parametrize(
    "names", [("lokr_w1", "lokr_w2"), ("a1.weight", "a2.weight", "b1.weight", "b2.weight"), ("oft_R.weight",),
              ("oft_blocks",), ("weight", "on_input"), ("diff",)]
)  # fmt: skip
def test_odd_shapes_tell_nothing_and_break_nothing(
    names: tuple[str, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    for layer in (f"lora_unet_{KEY}", f"lora_te_{TEXT_LAYER}"):
        found = facts(tmp_path / "a.safetensors", {f"{layer}.{name}": torch.ones(shape) for name in names})
        assert isinstance(found["for"], str)


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
