"""Tiny random Stable Diffusion XL models on disk: diffusers folders made by diffusers, and the same as single files.

All are true in kind (two text encoders, size conditioning, blocks, latent scale) and small in size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig as TransformersConfig
from transformers import CLIPTextModel, CLIPTextModelWithProjection

import tiny_checkpoints as tiny
from built_once import built_once
from stable_diffusion.models.clip import CLIPTextConfig
from stable_diffusion.models.unet import UNetConfig
from stable_diffusion.text.tokenizer import END
from stable_diffusion.weights.networks.clip import clip_openclip, clip_transformers
from stable_diffusion.weights.networks.unet import unet_diffusers, unet_ldm
from stable_diffusion.weights.networks.vae import vae_diffusers, vae_ldm

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LAYERS, POOLED = 3, 48
WIDTH, WIDTH_G = 64, 128
"""Of the two text encoders; diffusers tells them apart by it in single files."""


@dataclass(frozen=True)
class Kind:
    """How a tiny XL model differs from the others, in both languages; `numbers` on size, `first` has CLIP-L too.

    `noise` are settings of its scheduler, `marks` empty tensors by which a single file says the same.
    """

    name: str
    pipeline: Any = StableDiffusionXLPipeline
    numbers: int = 6
    first: bool = True
    in_channels: int = 4
    unet: dict[str, Any] = field(default_factory=lambda: {"transformer_layers_per_block": [1, 2]})
    ours: dict[str, Any] = field(default_factory=lambda: {"transformer_depth": (0, 2), "mid_depth": 2})
    settings: dict[str, Any] = field(default_factory=dict)
    noise: dict[str, Any] = field(default_factory=lambda: {"timestep_spacing": "leading"})
    marks: tuple[str, ...] = ()

    @property
    def config(self) -> UNetConfig:
        return UNetConfig(
            in_channels=self.in_channels, channels=(32, 64), head_dim=64, context_dim=self.context,
            linear_projection=True, vector_dim=self.vector, **self.ours,
        )  # fmt: skip

    @property
    def context(self) -> int:
        return WIDTH * self.first + WIDTH_G

    @property
    def vector(self) -> int:
        return POOLED + 256 * self.numbers


BASE = Kind("sdxl")
REFINER = Kind(
    "sdxl-refiner", StableDiffusionXLImg2ImgPipeline, numbers=5, first=False,
    settings={"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False},
)  # fmt: skip
INPAINT = Kind("sdxl-inpaint", StableDiffusionXLInpaintPipeline, in_channels=9)
EDIT = Kind("sdxl-pix2pix", StableDiffusionXLInstructPix2PixPipeline, in_channels=8)
PRUNED = Kind(
    "ssd-1b",
    unet={
        "transformer_layers_per_block": [1, [2, 1]],
        "reverse_transformer_layers_per_block": [[1, 2, 3], 1],
        "mid_block_type": "UNetMidBlock2D",
    },
    ours={"transformer_depth": (0, (2, 1)), "up_depth": (0, (1, 2, 3)), "mid_depth": 0, "mid_blocks": 1},
)
KOALA = Kind(
    "koala",
    unet={"layers_per_block": 1, "transformer_layers_per_block": [1, 2], "mid_block_type": None},
    ours={"blocks_per_stage": 1, "transformer_depth": (0, 2), "mid_depth": 0, "mid_blocks": 0},
)
VEGA = Kind(
    "vega",
    unet={
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, [1, 1]],
        "reverse_transformer_layers_per_block": [[2, 1, 1], 1],
        "mid_block_type": "UNetMidBlock2D",
    },
    ours={"transformer_depth": (0, (1, 1)), "up_depth": (0, (2, 1, 1)), "mid_depth": 0, "mid_blocks": 1},
)
V_PLAIN = Kind(
    "sdxl-v", marks=("v_pred",), noise={"timestep_spacing": "leading", "prediction_type": "v_prediction"},
)  # fmt: skip
V_ZERO = Kind(
    "sdxl-v-zero-snr", marks=("v_pred", "ztsnr"),
    noise={"timestep_spacing": "trailing", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
)  # fmt: skip
FAMILIES = {"ssd-1b": "sdxl", "vega": "sdxl", "koala": "sdxl", "sdxl-v": "sdxl", "sdxl-v-zero-snr": "sdxl"}
"""Kind -> family, where they are not called the same."""
CLIP_L = CLIPTextConfig(width=WIDTH, layers=LAYERS, heads=1, mlp_width=96)
CLIP_G = CLIPTextConfig(width=WIDTH_G, layers=LAYERS, heads=2, mlp_width=96, activation="gelu", projection_dim=POOLED)


def scheduler(kind: Kind) -> EulerDiscreteScheduler:
    """The one of the released folders."""
    return EulerDiscreteScheduler(steps_offset=1, **NOISE, **kind.noise)


def text_config(config: CLIPTextConfig) -> TransformersConfig:
    return TransformersConfig(
        hidden_size=config.width, num_hidden_layers=config.layers, num_attention_heads=config.heads,
        intermediate_size=96, hidden_act=config.activation, vocab_size=49408, projection_dim=POOLED,
        eos_token_id=49407, bos_token_id=49406, pad_token_id=1,
    )  # fmt: skip


def networks(kind: Kind) -> dict[str, Any]:
    """Random networks, with every zero-initialised tensor filled so that all parts matter."""
    torch.manual_seed(29)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=kind.in_channels, block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=[1, 1], use_linear_projection=True, cross_attention_dim=kind.context,
        addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=kind.vector, **{"layers_per_block": 2, **kind.unet},
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=tiny.VAE_CONFIG.channels, layers_per_block=1, latent_channels=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=0.13025,
    )  # fmt: skip
    first = CLIPTextModel(text_config(CLIP_L)) if kind.first else None
    second = CLIPTextModelWithProjection(text_config(CLIP_G))
    generator = torch.Generator().manual_seed(31)
    made = {"unet": unet, "vae": vae, "text_encoder": first, "text_encoder_2": second}
    with torch.no_grad():
        for module in filter(None, made.values()):
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
            module.eval()
        # About unit variance, as a trained network answers: a whisper would hide errors of samplers.
        x, tokens = torch.randn(4, kind.in_channels, 8, 8), torch.randn(4, 77, kind.context)
        told = {"text_embeds": torch.randn(4, POOLED), "time_ids": torch.full((4, kind.numbers), 64.0)}
        answer = unet(x, torch.tensor([10, 300, 600, 900]), tokens, added_cond_kwargs=told).sample
        unet.conv_out.weight.div_(answer.std())
    return made


@built_once
def write_folder(kind: Kind, place: Path) -> Path:
    """The diffusers folder of a kind, saved by diffusers."""
    tokenizer = tiny.write_tokenizer(place / "work" / "1", END) if kind.first else None
    second = tiny.write_tokenizer(place / "work" / "2", "!")
    pipeline = kind.pipeline(
        **networks(kind), tokenizer=tokenizer, tokenizer_2=second, scheduler=scheduler(kind), add_watermarker=False,
        **kind.settings,
    )  # fmt: skip
    pipeline.save_pretrained(place / kind.name)
    return place / kind.name


def read_folder(kind: Kind, folder: Path) -> Any:
    """Diffusers' own pipeline of a folder."""
    pipeline = kind.pipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def single_state(kind: Kind, folder: Path) -> dict[str, torch.Tensor]:
    """The same weights under the names of a single file (SGM)."""
    files = {part: load_file(next((folder / part).glob("*.safetensors"))) for part in ("unet", "vae", "text_encoder_2")}
    unet = unet_ldm(kind.config).invert(unet_diffusers(kind.config).convert(files["unet"]))
    vae = vae_ldm(tiny.VAE_CONFIG).invert(vae_diffusers(tiny.VAE_CONFIG).convert(files["vae"]))
    second = clip_openclip(CLIP_G).invert(clip_transformers(CLIP_G).convert(files["text_encoder_2"]))
    second["logit_scale"] = torch.tensor(4.6)
    parts = {"model.diffusion_model.": unet, "first_stage_model.": vae, "conditioner.embedders.0.model.": second}
    if kind.first:
        table = clip_transformers(CLIP_L)
        text = table.invert(table.convert(load_file(folder / "text_encoder" / "model.safetensors")))
        text["text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
        parts["conditioner.embedders.1.model."] = parts.pop("conditioner.embedders.0.model.")
        parts["conditioner.embedders.0.transformer."] = text
    state = {prefix + name: tensor.contiguous() for prefix, part in parts.items() for name, tensor in part.items()}
    return {**state, **{mark: torch.zeros(0) for mark in kind.marks}}


def write_single(kind: Kind, folder: Path, path: Path) -> Path:
    """A .safetensors file in the SGM layout."""
    save_file(single_state(kind, folder), path)
    return path
