"""Every key style of adapters for Stable Diffusion 3 means the same parameters of ours, T5's too."""

from __future__ import annotations

import torch

import tiny_sd3 as sd3
from stable_diffusion.adapters.attach import attach
from stable_diffusion.adapters.describe import adapter_facts
from stable_diffusion.adapters.targets import Network, mmdit_targets, t5_targets
from stable_diffusion.models.mmdit import MMDiT
from stable_diffusion.models.t5 import T5Config, T5Encoder
from stable_diffusion.weights.containers.safetensors import write_safetensors

CONFIG = sd3.Kind("all", qk_norm=True, dual_attention=(0,)).config


def test_every_style_means_the_same_layer() -> None:
    targets = mmdit_targets(CONFIG)
    for ours, *stems in (
        (
            "blocks.0.image.mlp.up.weight",
            *("transformer.transformer_blocks.0.ff.net.0.proj", "lora_transformer_transformer_blocks_0_ff_net_0_proj"),
            *("lora_unet_joint_blocks_0_x_block_mlp_fc1", "diffusion_model.joint_blocks.0.x_block.mlp.fc1"),
            *("model.diffusion_model.joint_blocks.0.x_block.mlp.fc1", "unet.blocks.0.image.mlp.up"),
            *("transformer_blocks.0.ff.net.0.proj", "lycoris_transformer_blocks_0_ff_net_0_proj"),
        ),
        ("blocks.0.image.second_attention.key.weight", "transformer.transformer_blocks.0.attn2.to_k"),
        ("blocks.0.text.attention.out.weight", "lora_unet_joint_blocks_0_context_block_attn_proj"),
        ("modulation_out.weight", "lora_unet_final_layer_adaLN_modulation_1", "transformer.norm_out.linear"),
    ):
        assert {targets[stem].weight.ours for stem in stems} == {(ours,)}
    fused = targets["lora_unet_joint_blocks_1_context_block_attn_qkv"].weight.ours
    assert fused == tuple(f"blocks.1.text.attention.{name}.weight" for name in ("query", "key", "value"))


def test_every_weight_has_a_name() -> None:
    config = T5Config(vocab_size=9, width=8, layers=2, heads=2, head_dim=4, mlp_width=8)
    with torch.device("meta"):
        networks = (MMDiT(CONFIG), mmdit_targets(CONFIG)), (T5Encoder(config), t5_targets(config))
    for module, targets in networks:
        named = {name for target in targets.values() for name in target.weight.ours}
        assert {name for name, _ in module.named_parameters() if name.endswith("weight")} <= named
    stem = "lora_te3_encoder_block_1_layer_0_SelfAttention_q"
    assert t5_targets(config)[stem].weight.ours == ("layers.1.attention.query.weight",)


def test_a_lora_of_all_kinds_of_layers_comes_and_goes(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(2)
    config = T5Config(vocab_size=9, width=8, layers=1, heads=2, head_dim=4, mlp_width=8)
    mmdit, t5 = MMDiT(CONFIG).requires_grad_(False), T5Encoder(config).requires_grad_(False)
    shapes = {
        "lora_unet_joint_blocks_0_x_block_attn_qkv": (384, 128),
        "lora_unet_final_layer_adaLN_modulation_1": (256, 128),
        "lora_unet_joint_blocks_1_context_block_adaLN_modulation_1": (256, 128),
        "lora_te3_encoder_block_0_layer_1_DenseReluDense_wi_1": (8, 8),
    }
    state, deltas = {}, {}
    for stem, (rows, columns) in shapes.items():
        up, down = torch.randn(rows, 2), torch.randn(2, columns)
        state |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down, f"{stem}.alpha": torch.tensor(1.0)}
        deltas[stem] = up @ down / 2
    path = tmp_path / "all.safetensors"
    write_safetensors(path, state, {})
    networks = Network("unet", mmdit, mmdit_targets(CONFIG)), Network("text_3", t5, t5_targets(config))
    before = {name: tensor.clone() for name, tensor in mmdit.state_dict().items()}
    query, up = mmdit.blocks[0].image.attention.query, t5.layers[0].mlp.up  # type: ignore[union-attr]
    second = mmdit.blocks[1].text.modulation  # type: ignore[union-attr]
    text = up.weight.clone()
    with attach(networks, path, 0.5, 2.0) as attachment:
        assert attachment.kinds == {"LoRA": 4} and attachment.unmatched == ()
        fused, last = deltas["lora_unet_joint_blocks_0_x_block_attn_qkv"], list(deltas)[2]
        torch.testing.assert_close(query.weight, before["blocks.0.image.attention.query.weight"] + 0.5 * fused[:128])
        torch.testing.assert_close(second.weight, before["blocks.1.text.modulation.weight"] + 0.5 * deltas[last])
        torch.testing.assert_close(up.weight, text + 2.0 * list(deltas.values())[3])
    assert all(torch.equal(tensor, before[name]) for name, tensor in mmdit.state_dict().items())
    facts = adapter_facts(path, hashes=False)
    assert facts is not None and facts["for"] == "Stable Diffusion 3"
    assert facts["networks"] == {"denoiser": 3, "text encoder": 1}
