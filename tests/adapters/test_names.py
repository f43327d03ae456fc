"""Every key style means the same parameters of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapter_files import ALL, CONV, FC, OUT, PROJ, QUERY, TEXT, kohya, lora_state, shapes
from safetensors.torch import save_file
from torch import Tensor

from stable_diffusion.adapters.targets import networks, text_targets, unet_targets
from stable_diffusion.models.clip import CLIPTextConfig
from stable_diffusion.models.unet import UNetConfig
from stable_diffusion.pipeline.models import StableDiffusion

Spell = Callable[[str], tuple[str, str, str]]

SGM = {
    QUERY: "input_blocks.1.1.transformer_blocks.0.attn2.to_q",
    OUT: "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0",
    PROJ: "input_blocks.1.1.proj_in",
    CONV: "input_blocks.1.0.in_layers.2",
}
NATIVE = {
    QUERY: "down.0.transformers.0.blocks.0.cross_attention.query",
    OUT: "down.0.transformers.0.blocks.0.self_attention.out",
    PROJ: "down.0.transformers.0.proj_in",
    CONV: "down.0.resblocks.0.conv1",
    TEXT: "layers.1.attention.value",
    FC: "layers.0.mlp.up",
}


def is_text(path: str) -> bool:
    return path.startswith("text_model.")


def dotted(path: str) -> str:
    return ("text_encoder." if is_text(path) else "unet.") + path


def sgm_kohya(path: str) -> tuple[str, str, str]:
    if is_text(path):
        return kohya(path)
    stem = "lora_unet_" + SGM[path].replace(".", "_")
    return f"{stem}.lora_up.weight", f"{stem}.lora_down.weight", f"{stem}.alpha"


def peft(path: str) -> tuple[str, str, str]:
    return f"{dotted(path)}.lora_B.weight", f"{dotted(path)}.lora_A.weight", ""


def peft_folder(path: str) -> tuple[str, str, str]:
    return f"base_model.model.{path}.lora_B.weight", f"base_model.model.{path}.lora_A.weight", ""


def old_diffusers(path: str) -> tuple[str, str, str]:
    stem = dotted(path)
    if is_text(path):
        return f"{stem}.lora_linear_layer.up.weight", f"{stem}.lora_linear_layer.down.weight", ""
    if ".attn" in path:
        block, _, layer = stem.replace("to_out.0", "to_out").rpartition(".")
        stem = f"{block}.processor.{layer}_lora"
        return f"{stem}.up.weight", f"{stem}.down.weight", f"{stem}.alpha"
    return f"{stem}.lora.up.weight", f"{stem}.lora.down.weight", ""


def older_text(path: str) -> tuple[str, str, str]:
    stem = dotted(path)
    if "self_attn" in path:
        stem = stem.replace("v_proj", "to_v_lora")
        return f"{stem}.up.weight", f"{stem}.down.weight", ""
    return old_diffusers(path)


def generic(path: str) -> tuple[str, str, str]:
    stem = f"cond_stage_model.transformer.{path}" if is_text(path) else f"diffusion_model.{SGM[path]}"
    return f"{stem}.lora_up.weight", f"{stem}.lora_down.weight", f"{stem}.alpha"


def native(path: str) -> tuple[str, str, str]:
    stem = f"{'text' if is_text(path) else 'unet'}.{NATIVE[path]}"
    return f"{stem}.lora_B.weight", f"{stem}.lora_A.weight", f"{stem}.alpha"


def te1(path: str) -> tuple[str, str, str]:
    return tuple(name.replace("lora_te_", "lora_te1_") for name in kohya(path))  # type: ignore[return-value]


STYLES = [kohya, te1, sgm_kohya, peft, peft_folder, old_diffusers, older_text, generic, native]


@pytest.mark.parametrize("spell", STYLES, ids=lambda spell: spell.__name__)
def test_every_style_changes_the_same_weights(spell: Spell, tiny_model: StableDiffusion, tmp_path: Path) -> None:
    changed: list[dict[str, Tensor]] = []
    for style in (kohya, spell):
        path = tmp_path / f"{style.__name__}.safetensors"
        save_file(lora_state(tiny_model, ALL, style), path)
        with tiny_model.attach(path) as attachment:
            assert attachment.unmatched == () and sum(attachment.kinds.values()) == len(ALL)
            changed.append(
                {
                    f"{part}.{name}": parameter.clone()
                    for part in ("unet", "clip")
                    for name, parameter in getattr(tiny_model.parts, part).named_parameters()
                }
            )
    first, second = changed
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-6, atol=1e-7)


def test_an_old_attention_layer_is_found_without_the_prefix(tiny_model: StableDiffusion) -> None:
    unet, _ = networks(tiny_model.parts.unet, tiny_model.parts.clip)
    stem = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out"
    found = unet.find(stem)
    assert found is not None and found.weight.ours == (f"{NATIVE[OUT]}.weight",)


@pytest.mark.parametrize("depth", [(1, 1, 1, 0), (0, 2, 3)])
def test_every_layer_of_the_model_has_a_name_in_every_layout(depth: tuple[int, ...]) -> None:
    """Also of the shape of Stable Diffusion XL, whose files use the SGM layout."""
    channels = (320, 640, 1280, 1280)[: len(depth)]
    config = UNetConfig(channels=channels, transformer_depth=depth, mid_depth=depth[-1] or 1)
    targets = unet_targets(config)
    for prefix, sign in (
        ("lora_unet_down_blocks", "_"),
        ("lora_unet_input_blocks", "_"),
        ("diffusion_model.input", "."),
    ):
        assert any(stem.startswith(prefix) and sign in stem for stem in targets)
    ours = {name for target in targets.values() for name in target.weight.ours}
    with torch.device("meta"):
        from stable_diffusion.models.unet import UNet

        weights = {name for name, _ in UNet(config).named_parameters() if name.endswith(".weight")}
    assert weights <= ours
    for style in ("lora_unet_down_blocks_1_attentions_1_transformer_blocks_0_ff_net_0_proj",
                  "lora_unet_input_blocks_5_1_transformer_blocks_0_ff_net_0_proj"):  # fmt: skip
        assert targets[style].weight.ours == ("down.1.transformers.1.blocks.0.mlp.up.weight",)


def test_text_layers_of_both_layouts() -> None:
    config = CLIPTextConfig(layers=2)
    targets = text_targets(config)
    fused = targets["cond_stage_model.model.transformer.resblocks.1.attn.in_proj"]
    assert fused.weight.ours == tuple(f"layers.1.attention.{name}.weight" for name in ("query", "key", "value"))
    assert targets["lora_te_text_model_embeddings_position_embedding"].weight.ours == ("position_embedding",)
    assert targets["lora_te_encoder_layers_0_mlp_fc2"].weight.ours == ("layers.0.mlp.down.weight",)


def test_a_fused_layer_changes_its_three_parts(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    width = tiny_model.parts.clip.config.width
    difference = torch.randn(3 * width, width)
    stem = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj"
    save_file({f"{stem}.diff": difference}, tmp_path / "fused.safetensors")
    attention = tiny_model.parts.clip.layers[0].attention  # type: ignore[union-attr]
    before = torch.cat([getattr(attention, name).weight.detach().clone() for name in ("query", "key", "value")])
    with tiny_model.attach(tmp_path / "fused.safetensors"):
        after = torch.cat([getattr(attention, name).weight for name in ("query", "key", "value")])
    torch.testing.assert_close(after, before + difference)


def test_the_fixture_covers_convolutions_and_1x1(tiny_model: StableDiffusion) -> None:
    sizes = shapes(tiny_model)
    assert len(sizes[CONV]) == 4 and sizes[PROJ][2:] == (1, 1) and len(sizes[QUERY]) == 2
