"""The configs of diffusers folders of Stable Diffusion 1.5, XL and 3 medium, for its single-file loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)

from stable_diffusion.text.tokenizer import END, START, clip_tables

PIPELINES = {"sd15": "StableDiffusionPipeline", "xl": "StableDiffusionXLPipeline", "sd3": "StableDiffusion3Pipeline"}


def write_configs(folder: Path, family: str) -> None:
    """`model_index.json`, and the config of each component in its folder."""
    with torch.device("meta"):
        parts = {"vae": vae(family), **({"transformer": transformer()} if family == "sd3" else {"unet": unet(family)})}
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    if family != "sd3":
        scheduler = EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading",
            steps_offset=1,
        )  # fmt: skip
    for name, part in {**parts, "scheduler": scheduler}.items():
        part.save_config(folder / name)
    texts = {"text_encoder": clip(768, 12, 12, "quick_gelu")}
    if family != "sd15":
        texts["text_encoder_2"] = clip(1280, 32, 20, "gelu")
    kinds = dict.fromkeys(texts, "CLIPTextModelWithProjection")
    if family != "sd3":
        kinds["text_encoder"] = "CLIPTextModel"
    index: dict[str, Any] = {"_class_name": PIPELINES[family], "_diffusers_version": "0.30.0"}
    for number, (name, config) in enumerate(texts.items()):
        config.architectures = [kinds[name]]
        config.save_pretrained(folder / name)
        tokenizer = name.replace("text_encoder", "tokenizer")
        write_tokenizer(folder / tokenizer, "!" if number else END)
        index |= {name: ["transformers", kinds[name]], tokenizer: ["transformers", "CLIPTokenizer"]}
    if family == "sd3":
        index |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    made = {**parts, "scheduler": scheduler}
    index |= {name: ["diffusers", type(part).__name__] for name, part in made.items()}
    (folder / "model_index.json").write_text(json.dumps(index))


def unet(family: str) -> UNet2DConditionModel:
    if family == "sd15":
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), cross_attention_dim=2048, attention_head_dim=(5, 10, 20),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        transformer_layers_per_block=[1, 2, 10], addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )  # fmt: skip


def transformer() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=128, num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    )


def vae(family: str) -> AutoencoderKL:
    sd3 = {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609}
    other: dict[str, Any] = {"use_quant_conv": False, "use_post_quant_conv": False, **sd3}
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=1024,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        **(other if family == "sd3" else {"scaling_factor": 0.18215 if family == "sd15" else 0.13025}),
    )  # fmt: skip


def clip(width: int, layers: int, heads: int, activation: str) -> transformers.CLIPTextConfig:
    return transformers.CLIPTextConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
        hidden_act=activation, projection_dim=width, vocab_size=49408, bos_token_id=49406, eos_token_id=49407,
        pad_token_id=1,
    )  # fmt: skip


def write_tokenizer(folder: Path, pad: str) -> None:
    folder.mkdir(parents=True)
    vocabulary, merges = clip_tables()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    told = {**marks, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "add_prefix_space": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
