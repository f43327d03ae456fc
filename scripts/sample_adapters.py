"""Adapters and parts of models as files of names and shapes, like those of `sample_files`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from released_shapes import SD1, SDXL
from safetensors.torch import save_file
from sample_files import empty, of_shapes, write_header
from torch import Tensor

from stable_diffusion.models.clip_vision import CLIPVision, CLIPVisionConfig
from stable_diffusion.models.controlnet import ControlNet, ControlNetConfig
from stable_diffusion.models.t2i_adapter import T2IAdapter, T2IAdapterConfig
from stable_diffusion.models.tiny_vae import TinyVAE, TinyVAEConfig
from stable_diffusion.models.unet import UNetConfig
from stable_diffusion.weights.containers.safetensors import write_safetensors
from stable_diffusion.weights.networks.clip_vision import clip_vision_transformers
from stable_diffusion.weights.networks.controlnet import controlnet_diffusers, controlnet_ldm
from stable_diffusion.weights.networks.t2i_adapter import t2i_adapter_table
from stable_diffusion.weights.networks.tiny_vae import tiny_layout, tiny_table

BLOCK = "down_blocks_1_attentions_0_transformer_blocks_0"
KOHYA = f"lora_unet_{BLOCK}_attn2_to_k"
LYCORIS: dict[str, dict[str, tuple[int, ...]]] = {
    "locon": {"lora_up.weight": (640, 8, 1, 1), "lora_down.weight": (8, 320, 3, 3), "alpha": ()},
    "loha": {"hada_w1_a": (640, 4), "hada_w1_b": (4, 768), "hada_w2_a": (640, 4), "hada_w2_b": (4, 768), "alpha": ()},
    "lokr": {"lokr_w1": (16, 16), "lokr_w2_a": (40, 4), "lokr_w2_b": (4, 48), "alpha": ()},
    "ia3": {"weight": (640,), "on_input": ()},
    "oft": {"oft_blocks": (8, 80, 80)},
    "boft": {"oft_blocks": (2, 8, 80, 80)},
    "glora": {"a1.weight": (4, 768), "a2.weight": (768, 4), "b1.weight": (4, 768), "b2.weight": (640, 4)},
    "dora": {"lora_up.weight": (640, 8), "lora_down.weight": (8, 768), "dora_scale": (640, 1), "alpha": ()},
    "full": {"diff": (640, 768), "diff_b": (640,)},
    "norm": {"w_norm": (640,), "b_norm": (640,)},
}
"""Kinds of adapters for one layer of Stable Diffusion 1.x -> tensors, whose names follow that of the layer."""
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
IN_TEXT: dict[str, dict[str, tuple[int, ...]]] = {
    "ia3": {"weight": (768,), "on_input": ()},
    "oft": {"oft_blocks": (8, 96, 96)},
    "boft": {"oft_blocks": (2, 8, 96, 96)},
}
"""Kinds that show rows alone -> tensors of a layer of the text encoder, whose width tells the family."""
SPELLINGS = {
    "kohya": ("lora_unet_{flat}", "lora_up.weight", "lora_down.weight"),
    "diffusers": ("unet.{dotted}", "lora_B.weight", "lora_A.weight"),
    "diffusers-0.17": ("unet.{processor}", "up.weight", "down.weight"),
    "peft": ("base_model.model.{dotted}", "lora_B.weight", "lora_A.weight"),
    "sgm": ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", "lora_up.weight", "lora_down.weight"),
    "generic": ("diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k", "lora_B.weight", "lora_A.weight"),
}
"""Spellings of one layer's name and of the two factors of its LoRA."""


def write_lora(path: Path) -> None:
    """A small one with all its numbers, so that its hash is that of a whole file."""
    state = {}
    for name, width in (("attn1_to_q", 640), ("attn2_to_k", 768), ("attn2_to_v", 768)):
        state[f"lora_unet_{BLOCK}_{name}.lora_up.weight"] = torch.zeros(640, 8)
        state[f"lora_unet_{BLOCK}_{name}.lora_down.weight"] = torch.zeros(8, width)
    for part, shape in (("lora_up.weight", (768, 8)), ("lora_down.weight", (8, 768))):
        state[f"lora_te_text_model_encoder_layers_0_self_attn_q_proj.{part}"] = torch.zeros(shape)
    metadata = {"ss_base_model_version": "sd_v1", "ss_output_name": "ink", "ss_network_dim": "8"}
    write_safetensors(path, state, metadata)


def write_lycoris(place: Path) -> None:
    for kind, tensors in LYCORIS.items():
        layer = f"lora_unet_{BLOCK}_norm1" if kind == "norm" else KOHYA
        layer = "lora_unet_down_blocks_1_resnets_0_conv1" if kind == "locon" else layer
        shapes = {f"{layer}.{name}": shape for name, shape in tensors.items()}
        shapes |= {f"{TEXT}.{name}": shape for name, shape in IN_TEXT.get(kind, {}).items()}
        write_header(place / f"{kind}.safetensors", of_shapes(shapes))


def write_spellings(place: Path) -> None:
    dotted = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    processor = dotted.replace("attn2.to_k", "attn2.processor.to_k_lora")
    for name, (stem, up, down) in SPELLINGS.items():
        layer = stem.format(flat=dotted.replace(".", "_"), dotted=dotted, processor=processor)
        shapes = {f"{layer}.{up}": (640, 8), f"{layer}.{down}": (8, 768)}
        write_header(place / f"{name}.safetensors", of_shapes(shapes))


def write_embeddings(place: Path) -> None:
    """Three layouts of textual inversion."""
    word = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(4, 768)}, "name": "old-photo"}
    torch.save(word, place / "old-photo.pt")
    torch.save({"<cat-toy>": torch.zeros(768)}, place / "learned_embeds.bin")
    save_file({"clip_l": torch.zeros(2, 768), "clip_g": torch.zeros(2, 1280)}, place / "xl-word.safetensors")


def controlnet(base: UNetConfig, tasks: int = 0) -> tuple[ControlNetConfig, dict[str, Tensor]]:
    config = ControlNetConfig(**{**asdict(base), "out_channels": 4, "up_depth": None}, tasks=tasks)
    state: dict[str, Tensor] = empty(ControlNet, config).state_dict()
    return config, state


def write_controlnets(place: Path) -> None:
    config, state = controlnet(SD1)
    ldm = controlnet_ldm(config).prefixed("control_model.").invert(state)
    write_header(place / "control_v11p_sd15_canny.safetensors", ldm)
    config, state = controlnet(SDXL, tasks=6)
    write_header(place / "union_sdxl.safetensors", controlnet_diffusers(config).invert(state))
    config, state = controlnet(SDXL)
    write_header(place / "control-lora-canny-rank128.safetensors", control_lora(controlnet_ldm(config).invert(state)))


def control_lora(state: dict[str, Tensor], rank: int = 128) -> dict[str, Tensor]:
    """Matrices and convolutions of the U-Net's copy as two factors; what is the ControlNet's own stays whole."""
    made: dict[str, tuple[int, ...]] = {"lora_controlnet": (0,)}
    for name, tensor in state.items():
        own = name.startswith(("zero_convs.", "input_hint_block.", "middle_block_out."))
        if own or not name.endswith(".weight") or tensor.ndim < 2:
            made[name] = tuple(tensor.shape)
        else:
            stem, ones = name.removesuffix(".weight"), (1,) * (tensor.ndim - 2)
            made[f"{stem}.up"], made[f"{stem}.down"] = (tensor.shape[0], rank, *ones), (rank, *tensor.shape[1:])
    return of_shapes(made)


def write_t2i_adapter(path: Path) -> None:
    config = T2IAdapterConfig()
    state = empty(T2IAdapter, config).state_dict()
    write_header(path, t2i_adapter_table(config, released=True).invert(state))


def write_ip_adapter(path: Path) -> None:
    """The plain one for Stable Diffusion 1.x: keys and values of 16 attentions, and the picture's way to 4 tokens."""
    widths = (320, 320, 640, 640, 1280, 1280, *(1280,) * 3, *(640,) * 3, *(320,) * 3, 1280)
    shapes: dict[str, tuple[int, ...]] = {
        f"ip_adapter.{2 * index + 1}.to_{part}_ip.weight": (width, 768)
        for index, width in enumerate(widths)
        for part in ("k", "v")
    }
    shapes |= {"image_proj.proj.weight": (3072, 1024), "image_proj.proj.bias": (3072,)}
    shapes |= {"image_proj.norm.weight": (768,), "image_proj.norm.bias": (768,)}
    write_header(path, of_shapes(shapes))


def write_image_tower(path: Path) -> None:
    config = CLIPVisionConfig()
    write_header(path, clip_vision_transformers(config).invert(empty(CLIPVision, config).state_dict()))


def write_taesd(path: Path) -> None:
    config = TinyVAEConfig()
    layout = tiny_layout({"taesd_decoder.1.weight": (64, 4, 3, 3), "taesd_decoder.3.conv.0.weight": (64, 64, 3, 3)})
    assert layout is not None
    write_header(path, tiny_table(config, layout).invert(empty(TinyVAE, config).state_dict()))
