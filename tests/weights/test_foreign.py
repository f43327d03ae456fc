"""Files of other kinds are called by their name, with what they are for; one mark alone never makes a kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stable_diffusion.adapters.describe import adapter_facts
from stable_diffusion.adapters.file import read_adapter
from stable_diffusion.errors import ModelFileError, UnknownModel
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.mmdit import MMDiT, MMDiTConfig
from stable_diffusion.models.t5 import T5Config, T5Encoder
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.weights.control import read_control_file
from stable_diffusion.weights.describe import inspect, refuse_other_kinds
from stable_diffusion.weights.foreign import KINDS, PACKED, Foreign, foreign_kind
from stable_diffusion.weights.load import load_parts
from stable_diffusion.weights.networks.clip import CLIP_LAYOUTS
from stable_diffusion.weights.networks.mmdit import MMDIT_LAYOUTS
from stable_diffusion.weights.networks.t5 import T5_LAYOUTS
from stable_diffusion.weights.networks.unet import UNET_LAYOUTS
from stable_diffusion.weights.networks.vae import VAE_LAYOUTS

U = "model.diffusion_model."
FILES: dict[str, tuple[str, str]] = {
    "Stable Video Diffusion": (
        f"{U}input_blocks.0.0.weight {U}input_blocks.1.0.time_stack.in_layers.0.weight "
        f"{U}input_blocks.1.0.time_mixer.mix_factor "
        "conditioner.embedders.0.open_clip.model.visual.conv1.weight",
     "video of a picture"),
    "Zero123": (f"{U}input_blocks.0.0.weight cc_projection.weight cond_stage_model.model.visual.conv1.weight",
     "another side"),
    "Stable unCLIP": (
        f"{U}label_emb.0.0.weight {U}input_blocks.0.0.weight cond_stage_model.model.ln_final.weight "
        "embedder.model.visual.proj noise_augmentor.data_mean",
     "variations"),
    "4x upscaler": (f"{U}label_emb.weight {U}input_blocks.0.0.weight low_scale_model.betas",
     "enlarges"),
    "PixArt": ("adaln_single.linear.weight transformer_blocks.0.scale_shift_table caption_projection.linear_1.weight",
     "pictures"),
    "PixArt ": ("x_embedder.proj.weight blocks.0.scale_shift_table y_embedder.y_proj.fc1.weight t_block.1.weight",
     "pictures"),
    "AuraFlow": ("model.double_layers.0.attn.w1q.weight model.cond_seq_linear.weight vae.encoder.conv_in.weight",
     "pictures"),
    "Stable Cascade": ("clip_txt_mapper.weight clip_img_mapper.weight down_blocks.0.0.channelwise.0.weight",
     "pictures"),
    "Kolors": ("encoder_hid_proj.weight add_embedding.linear_1.weight conv_in.weight",
     "ChatGLM"),
    "Flux": ("double_blocks.0.img_attn.qkv.weight double_blocks.0.txt_attn.qkv.weight img_in.weight",
     "pictures"),
    "Flux ": (f"{U}double_blocks.0.img_attn.qkv.weight {U}single_blocks.0.linear1.weight vae.encoder.conv_in.weight",
     "pictures"),
    "Flux  ": ("transformer_blocks.0.attn.to_q.weight single_transformer_blocks.0.attn.to_q.weight x_embedder.weight",
     "pictures"),
    "Kandinsky": ("conv_in.weight encoder_hid_proj.image_embeds.weight add_embedding.image_norm.weight",
     "CLIP"),
    "motion module": ("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight "
        "mid_block.motion_modules.0.temporal_transformer.norm.bias",
     "videos"),
    "motion LoRA": (
        "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0."
        "attention_blocks.0.processor.to_q_lora.down.weight",
        "camera"),
    "hypernetwork": ("768.0.linear.0.weight 768.1.linear.0.weight",
     "tokens"),
    "style T2I-Adapter": ("style_embedding transformer_layes.0.attn.in_proj_weight ln_post.weight proj",
     "style"),
    "LLLite": ("lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.conditioning1.0.weight",
     "steers"),
    "HunyuanDiT": ("text_embedding_padding blocks.0.default_modulation.1.weight pooler.q_proj.weight",
     "pictures"),
    "Lumina": ("cap_embedder.0.weight layers.0.attention.qkv.weight x_embedder.weight",
     "pictures"),
    "Wan": ("patch_embedding.weight text_embedding.0.weight time_projection.1.weight blocks.0.self_attn.q.weight",
     "videos"),
    "LTX": ("patchify_proj.weight adaln_single.linear.weight scale_shift_table caption_projection.linear_1.weight",
     "videos"),
    "Sana": ("attention_y_norm.weight blocks.0.mlp.inverted_conv.conv.weight "
        "y_embedder.y_proj.fc1.weight scale_shift_table",
     "pictures"),
    "CogVideoX": ("patch_embed.text_proj.weight transformer_blocks.0.norm1.linear.weight",
     "videos"),
    "DeepFloyd IF": ("add_embedding.pool.positional_embedding encoder_hid_proj.weight conv_in.weight",
     "pixels"),
    "HunyuanVideo": ("txt_in.individual_token_refiner.blocks.0.norm1.weight double_blocks.0.img_attn_qkv.weight",
     "videos"),
    "Qwen-Image": ("transformer_blocks.0.img_mod.1.weight transformer_blocks.0.txt_mod.1.weight txt_norm.weight",
     "pictures"),
    "ESRGAN": ("conv_first.weight body.0.rdb1.conv1.weight conv_up1.weight",
     "enlarges"),
    "ESRGAN ": ("model.0.weight model.1.sub.0.RDB1.conv1.0.weight",
     "enlarges"),
    "SwinIR": ("conv_first.weight layers.0.residual_group.blocks.0.norm1.weight",
     "enlarges"),
    "GFPGAN": ("stylegan_decoder.style_conv1.modulated_conv.weight stylegan_decoder.final_linear.weight",
     "faces"),
    "autoencoder of Wan": ("encoder.middle.0.residual.0.gamma "
        "decoder.upsamples.0.residual.0.gamma encoder.conv1.weight",
     "decodes"),
    "GLIGEN": (f"{U}position_net.linears.0.weight {U}input_blocks.1.1.transformer_blocks.0.fuser.attn.to_q.weight",
     "boxes"),
    "BERT": ("cond_stage_model.transformer.attn_layers.layers.0.weight cond_stage_model.transformer.token_emb.weight",
     "before"),
}  # fmt: skip


def write(path: Path, names: str | list[str]) -> Path:
    listed = names.split() if isinstance(names, str) else names
    save_file({name: torch.zeros(2, 2) for name in listed}, path)
    return path


@pytest.mark.parametrize(("kind", "names", "use"), [(kind.strip(), *about) for kind, about in FILES.items()])
def test_a_file_is_called_by_its_name_wherever_it_is_given(kind: str, names: str, use: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.safetensors", names)
    said = set()
    for look in (inspect, load_parts, read_adapter, read_control_file, refuse_other_kinds):
        with pytest.raises(UnknownModel) as caught:
            look(file)
        said.add(str(caught.value))
    (sentence,) = said
    assert kind in sentence and use in sentence and "pix2pix" not in sentence and "sd1" not in sentence


def named(mark: tuple[str, ...]) -> str:
    """A name with this mark."""
    piece = mark[0].rstrip("$")
    name = piece[1:] if piece.startswith("^") else f"x{piece}"
    return f"{name}weight" if name.endswith(".") else name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name} {kind.first[0]}")
def test_no_kind_is_made_by_one_mark(kind: Foreign) -> None:
    first, second = (named(mark) for mark in (kind.first, kind.second))
    assert foreign_kind([first, second]) is not None
    for alone in (first, second):
        assert foreign_kind([alone, "conv_in.weight"]) != f"{kind.name}, which {kind.use}" or first == second


def names_of_ours() -> list[tuple[str, list[str]]]:
    """Every network that is run, in every layout."""
    small = UNetConfig(channels=(32, 64), transformer_depth=(1, 0), mid_depth=1, heads=8, context_dim=64, vector_dim=8)
    cases = [
        (UNET_LAYOUTS, UNet, small),
        (MMDIT_LAYOUTS, MMDiT, MMDiTConfig(width=64, depth=2, heads=2, context_dim=32, vector_dim=16, positions=4,
                                           qk_norm=True, dual_attention=(0,))),
        (VAE_LAYOUTS, VAE, VAEConfig(channels=(32, 64))),
        (CLIP_LAYOUTS, CLIPText, CLIPTextConfig(width=64, layers=2, heads=1, mlp_width=64, projection_dim=32)),
        (T5_LAYOUTS, T5Encoder, T5Config(vocab_size=40, width=16, layers=2, heads=2, head_dim=8, mlp_width=24)),
    ]  # fmt: skip
    made = []
    for layouts, network, config in cases:
        with torch.device("meta"):
            state = network(config).state_dict()
        made += [(layout.name, list(layout.table(config).invert(state))) for layout in layouts.values()]
    return made


def test_no_network_of_ours_is_foreign() -> None:
    networks = names_of_ours()
    assert len(networks) == 11
    for layout, names in networks:
        for prefix in ("", "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.", "vae."):
            assert foreign_kind([prefix + name for name in names]) is None, (layout, prefix)


PACKINGS = {
    "NF4": ["a.weight", "a.weight.absmax", "a.weight.quant_map", "a.weight.quant_state.bitsandbytes__nf4"],
    "8-bit integers of bitsandbytes": ["a.weight", "a.SCB", "a.weight_format"],
    "GPTQ": ["a.qweight", "a.qzeros", "a.scales", "a.g_idx"],
    "AWQ": ["a.qweight", "a.qzeros", "a.scales"],
    "SVDQuant": ["a.qweight", "a.wscales", "a.smooth", "a.lora_down"],
    "NVFP4": ["a.weight", "a.weight_scale", "a.weight_scale_2"],
    "MXFP4": ["a.weight_blocks", "a.weight_scales"],
    "quanto": ["a.weight._data", "a.weight._scale"],
    "compressed-tensors": ["a.weight_packed", "a.weight_scale", "a.weight_shape"],
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_weights_are_named_and_refused_alike(packing: str, tmp_path: Path) -> None:
    names = [f"{U}input_blocks.1.{name}" for name in PACKINGS[packing]]
    first = {f"{U}input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3)}  # packed weights are bytes
    save_file({name: torch.zeros(2, 2, dtype=torch.uint8) for name in names} | first, tmp_path / "a.safetensors")
    file = tmp_path / "a.safetensors"
    for look in (inspect, load_parts, refuse_other_kinds):
        with pytest.raises(ModelFileError, match=f"{packing}.*does not read.*GGUF is expected"):
            look(file)
    assert len(PACKED) >= len(PACKINGS)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_integers_with_scales_are_not_taken_for_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(2, 2, dtype=dtype), "a.weight_scale": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelFileError, match="does not read"):
        inspect(tmp_path / "a.safetensors")


def test_a_hypernetwork_as_the_first_programs_wrote_it(tmp_path: Path) -> None:
    layers = ({"linear.0.weight": torch.zeros(8, 8)}, {"linear.0.weight": torch.zeros(8, 8)})
    torch.save({768: layers, "step": 1, "name": "x", "layer_structure": [1, 2, 1]}, tmp_path / "a.pt")
    with pytest.raises(UnknownModel, match=r"a\.pt is a hypernetwork, which changes the tokens"):
        inspect(tmp_path / "a.pt")


ADAPTERS = {
    "Wan": "diffusion_model.blocks.0.cross_attn.k",
    "Qwen-Image": "transformer.transformer_blocks.0.txt_mod.1",
    "HunyuanVideo": "diffusion_model.double_blocks.0.img_attn_qkv",
    "Flux": "transformer.single_transformer_blocks.0.attn.to_q",
    "Stable Cascade": "unet.down_blocks.0.1.channelwise.0",
    "AuraFlow": "diffusion_model.double_layers.0.attn.w1q",
}


@pytest.mark.parametrize("family", ADAPTERS)
def test_an_adapter_says_for_which_other_family_it_is(family: str, tmp_path: Path) -> None:
    stem = ADAPTERS[family]
    file = write(tmp_path / "a.safetensors", [f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"])
    facts = adapter_facts(file)
    assert facts is not None and family in facts["for"]
