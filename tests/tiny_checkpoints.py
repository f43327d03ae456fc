"""Tiny random Stable Diffusion models on disk: diffusers folders made by diffusers itself, and the same weights as
single files in the LDM layout. All are true in kind (blocks, conventions, text encoders) and small in size.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig as TransformersConfig
from transformers import CLIPTextModel, CLIPTokenizer

from built_once import built_once
from stable_diffusion.models.clip import CLIPTextConfig
from stable_diffusion.models.unet import UNetConfig
from stable_diffusion.models.vae import VAEConfig
from stable_diffusion.text.tokenizer import END, START, clip_tables
from stable_diffusion.weights.networks.clip import clip_openclip, clip_transformers
from stable_diffusion.weights.networks.unet import unet_diffusers, unet_ldm
from stable_diffusion.weights.networks.vae import vae_diffusers, vae_ldm

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


@dataclass(frozen=True)
class Kind:
    """How a tiny model differs from the other: the settings of its networks in both languages."""

    name: str
    unet: dict[str, Any]
    ours: UNetConfig
    activation: str
    pad: str
    scheduler: Any
    pipeline: Any = StableDiffusionPipeline

    @property
    def metadata(self) -> dict[str, str]:
        """What a single file of it says of itself, so that nothing is guessed."""
        told = {"sd2": "v", "sd2-base": "epsilon"}.get(self.name)
        return {} if told is None else {"modelspec.prediction_type": told}


SD1 = Kind(
    name="sd1",
    unet={"block_out_channels": (32, 64), "attention_head_dim": 8},
    ours=UNetConfig(channels=(32, 64), transformer_depth=(1, 0), mid_depth=1, heads=8, context_dim=64),
    activation="quick_gelu",
    pad=END,
    scheduler=lambda: PNDMScheduler(
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
        **{k: v for k, v in NOISE.items() if k != "clip_sample"},
    ),
)
SD2 = Kind(
    name="sd2",
    unet={"block_out_channels": (64, 128), "attention_head_dim": [1, 2], "use_linear_projection": True},
    ours=UNetConfig(
        channels=(64, 128), transformer_depth=(1, 0), mid_depth=1, head_dim=64, context_dim=64, linear_projection=True,
        upcast_attention=True,
    ),
    activation="gelu",
    pad="!",
    scheduler=lambda: DDIMScheduler(
        prediction_type="v_prediction", set_alpha_to_one=False, steps_offset=1, **NOISE
    ),
)  # fmt: skip


def told(kind: Kind, name: str, channels: int, pipeline: Any, **ours: Any) -> Kind:
    """A kind whose U-Net takes `channels`: the latent's, and those of what it is told besides."""
    return replace(
        kind, name=name, pipeline=pipeline, unet={**kind.unet, "in_channels": channels}, scheduler=SD1.scheduler,
        ours=replace(kind.ours, in_channels=channels, **ours),
    )  # fmt: skip


SD2_BASE = told(SD2, "sd2-base", 4, StableDiffusionPipeline, upcast_attention=False)
SMALL = replace(
    SD1, name="small-sd", unet={**SD1.unet, "layers_per_block": 1, "mid_block_type": None},
    ours=replace(SD1.ours, blocks_per_stage=1, mid_depth=0, mid_blocks=0),
)  # fmt: skip
INPAINT = told(SD1, "sd1-inpaint", 9, StableDiffusionInpaintPipeline)
EDIT = told(SD1, "sd1-pix2pix", 8, StableDiffusionInstructPix2PixPipeline)
INPAINT_2 = told(SD2, "sd2-inpaint", 9, StableDiffusionInpaintPipeline, upcast_attention=False)
DEPTH = told(SD2, "sd2-depth", 5, StableDiffusionDepth2ImgPipeline, upcast_attention=False)
VAE_CONFIG = VAEConfig(channels=(32, 32, 32, 64), blocks_per_stage=1)
CLIP_LAYERS = 2


def clip_config(kind: Kind, layers: int = CLIP_LAYERS) -> CLIPTextConfig:
    return CLIPTextConfig(width=64, layers=layers, heads=1, mlp_width=96, activation=kind.activation)


@functools.cache
def clip_files() -> tuple[str, str]:
    """What is in vocab.json and merges.txt."""
    vocabulary, merges = clip_tables()
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    return json.dumps(vocabulary), "\n".join(lines) + "\n"


def write_tokenizer(folder: Path, pad: str) -> CLIPTokenizer:
    """CLIP's vocabulary in the files that diffusers folders have."""
    folder.mkdir(parents=True)
    vocabulary, merges = clip_files()
    (folder / "vocab.json").write_text(vocabulary, encoding="utf-8")
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    config = {**marks, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "add_prefix_space": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def make_pipeline(kind: Kind, work: Path) -> Any:
    """A random model, with every zero-initialised tensor filled so that all parts matter."""
    torch.manual_seed(17)
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        **{"layers_per_block": 2, **kind.unet},
    )
    vae = AutoencoderKL(
        block_out_channels=VAE_CONFIG.channels,
        layers_per_block=1,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=64,
        scaling_factor=0.18215,
    )
    text = CLIPTextModel(
        TransformersConfig(
            hidden_size=64, num_hidden_layers=CLIP_LAYERS, num_attention_heads=1, intermediate_size=96,
            hidden_act=kind.activation, vocab_size=49408, eos_token_id=49407, bos_token_id=49406, pad_token_id=1,
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(23)
    with torch.no_grad():
        for module in (unet, vae, text):
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
        # About unit variance, as a trained network answers: a whisper would hide errors of samplers.
        shapes = (4, kind.ours.in_channels, 8, 8), (4, 77, 64)
        x, tokens = (torch.randn(shape, generator=generator) for shape in shapes)
        unet.conv_out.weight.div_(unet(x, torch.tensor([10, 300, 600, 900]), tokens).sample.std())
    absent = absent_parts(kind.pipeline)
    if kind.pipeline is not StableDiffusionDepth2ImgPipeline:
        absent["requires_safety_checker"] = False
    return kind.pipeline(
        vae=vae.eval(), text_encoder=text.eval(), unet=unet.eval(),
        tokenizer=write_tokenizer(work / "tokenizer", kind.pad), scheduler=kind.scheduler(), **absent,
    )  # fmt: skip


def absent_parts(pipeline: Any) -> dict[str, Any]:
    """The parts of a pipeline that these models do without, as diffusers wants to be told."""
    name = "depth_estimator" if pipeline is StableDiffusionDepth2ImgPipeline else "safety_checker"
    return {name: None, "feature_extractor": None}


@built_once
def write_folder(kind: Kind, place: Path) -> Path:
    """The diffusers folder of a kind, saved by diffusers."""
    make_pipeline(kind, place / "work").save_pretrained(place / kind.name)
    return place / kind.name


def ldm_state(kind: Kind, folder: Path) -> dict[str, torch.Tensor]:
    """The same weights under the names of a single file; SD2 gets the last text layer that diffusers leaves out."""
    unet = unet_diffusers(kind.ours).convert(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"))
    vae = vae_diffusers(VAE_CONFIG).convert(load_file(folder / "vae" / "diffusion_pytorch_model.safetensors"))
    clip = clip_transformers(clip_config(kind)).convert(load_file(folder / "text_encoder" / "model.safetensors"))
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in unet_ldm(kind.ours).invert(unet).items()}
    state.update({f"first_stage_model.{name}": tensor for name, tensor in vae_ldm(VAE_CONFIG).invert(vae).items()})
    if kind.activation == "quick_gelu":
        text = clip_transformers(clip_config(kind)).invert(clip)
        prefix = "cond_stage_model.transformer."
        text["text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    else:
        last = {
            name.replace("layers.1.", "layers.2."): torch.randn_like(clip[name]) for name in clip if "layers.1." in name
        }
        text = clip_openclip(clip_config(kind, CLIP_LAYERS + 1)).invert({**clip, **last})
        prefix = "cond_stage_model.model."
        text["text_projection"], text["logit_scale"] = torch.randn(64, 48), torch.tensor(4.6)
    state.update({prefix + name: tensor for name, tensor in text.items()})
    return {name: tensor.contiguous() for name, tensor in state.items()}


def under(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def write_single(kind: Kind, folder: Path, path: Path) -> Path:
    """A .safetensors file in the LDM layout with what the released checkpoints carry beside the weights."""
    state = ldm_state(kind, folder)
    state["model_ema.diffusion_modelinput_blocks00weight"] = torch.zeros(3)
    state["model_ema.decay"] = torch.tensor(0.9999)
    state["alphas_cumprod"] = torch.linspace(0.99, 0.01, 1000)
    if kind.ours.in_channels == 5:
        state["depth_model.model.pretrained.model.cls_token"] = torch.zeros(1, 1, 8)
    save_file(state, path, metadata=kind.metadata)
    return path
