"""Tiny random Stable Diffusion 3 and 3.5 models on disk: diffusers folders made by diffusers, and single files.

All are true in kind (joint blocks, three text encoders, latent space, noise schedule) and small in size.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig as TransformersConfig
from transformers import CLIPTextModelWithProjection, T5EncoderModel, T5Tokenizer
from transformers import T5Config as TransformersT5Config

import tiny_checkpoints as tiny
from built_once import built_once
from stable_diffusion.models.clip import CLIPTextConfig
from stable_diffusion.models.mmdit import MMDiTConfig
from stable_diffusion.models.vae import VAEConfig
from stable_diffusion.text.tokenizer import END
from stable_diffusion.weights.networks.clip import clip_transformers
from stable_diffusion.weights.networks.mmdit import mmdit_diffusers, mmdit_ldm
from stable_diffusion.weights.networks.vae import vae_diffusers, vae_ldm

LAYERS, POOLED, CONTEXT, VOCABULARY = 3, 48, 224, 256
WIDTH, WIDTH_G = 64, 128
"""Of CLIP's two encoders; diffusers tells them apart by it in single files."""
CLIP_L = CLIPTextConfig(width=WIDTH, layers=LAYERS, heads=1, mlp_width=96, projection_dim=WIDTH)
CLIP_G = CLIPTextConfig(width=WIDTH_G, layers=LAYERS, heads=2, mlp_width=96, activation="gelu", projection_dim=POOLED)
VAE = VAEConfig(channels=(32, 32, 32, 64), blocks_per_stage=1, latent_channels=16, quant_conv=False)
SHARED = "text_encoders.t5xxl.transformer.shared.weight"


@dataclass(frozen=True)
class Kind:
    """How a tiny model differs from the others; `t5` says that it comes with its third text encoder."""

    name: str
    qk_norm: bool = False
    dual_attention: tuple[int, ...] = ()
    t5: bool = True

    @property
    def config(self) -> MMDiTConfig:
        return MMDiTConfig(
            width=128, depth=2, heads=2, context_dim=CONTEXT, vector_dim=WIDTH + POOLED, positions=12,
            qk_norm=self.qk_norm, dual_attention=self.dual_attention,
        )  # fmt: skip


MEDIUM = Kind("sd3")
MEDIUM_35 = Kind("sd3.5-medium", qk_norm=True, dual_attention=(0,), t5=False)
LARGE_35 = Kind("sd3.5-large", qk_norm=True)
KINDS = (MEDIUM, MEDIUM_35, LARGE_35)


def write_t5_tokenizer(folder: Path) -> T5Tokenizer:
    """A small vocabulary of T5's kind: letters, some of them at the start of words, and a few words."""
    letters = "abcdefghijklmnopqrstuvwxyz,.()0123456789"
    words = ["▁beautiful", "▁sun", "set", "▁over", "▁the", "▁ocean", "▁oil", "▁on", "▁can", "vas", "▁low", "ity"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.5)]
    pieces += [(word, -3.0 - 0.1 * index) for index, word in enumerate(words)]
    pieces += [(letter, -6.0 - 0.05 * index) for index, letter in enumerate(letters)]
    tokenizer = T5Tokenizer(vocab=pieces, model_max_length=512)
    tokenizer.save_pretrained(folder)
    return tokenizer


def clip_model(config: CLIPTextConfig) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        TransformersConfig(
            hidden_size=config.width, num_hidden_layers=config.layers, num_attention_heads=config.heads,
            intermediate_size=96,
            hidden_act=config.activation, vocab_size=49408, projection_dim=config.projection_dim, eos_token_id=49407,
            bos_token_id=49406, pad_token_id=1,
        )
    )  # fmt: skip


def networks(kind: Kind) -> dict[str, Any]:
    """Random networks, with every zero-initialised tensor filled so that all parts matter."""
    torch.manual_seed(37)
    config = kind.config
    transformer = SD3Transformer2DModel(
        sample_size=8, num_layers=config.depth, attention_head_dim=64, num_attention_heads=2,
        joint_attention_dim=CONTEXT, caption_projection_dim=128, pooled_projection_dim=config.vector_dim,
        pos_embed_max_size=config.positions, dual_attention_layers=config.dual_attention,
        qk_norm="rms_norm" if kind.qk_norm else None,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=VAE.channels, layers_per_block=1, latent_channels=16, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=1.5305,
        shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip
    made: dict[str, Any] = {"transformer": transformer, "vae": vae, "text_encoder": clip_model(CLIP_L)}
    made["text_encoder_2"] = clip_model(CLIP_G)
    made["text_encoder_3"] = None
    if kind.t5:
        made["text_encoder_3"] = T5EncoderModel(
            TransformersT5Config(
                vocab_size=VOCABULARY, d_model=CONTEXT, d_kv=24, d_ff=96, num_layers=2, num_heads=3,
                feed_forward_proj="gated-gelu",
            )
        )  # fmt: skip
    generator = torch.Generator().manual_seed(41)
    with torch.no_grad():
        for module in filter(None, made.values()):
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
            module.eval()
        # As released: single files have no projection of CLIP-L, and folders one that changes nothing.
        made["text_encoder"].text_projection.weight.copy_(torch.eye(WIDTH))
        # About unit variance, as a trained network answers: a whisper would hide errors of samplers.
        x, tokens, pooled = torch.randn(2, 16, 8, 8), torch.randn(2, 80, CONTEXT), torch.randn(2, config.vector_dim)
        transformer.proj_out.weight.div_(transformer(x, tokens, pooled, torch.tensor([300.0, 900.0])).sample.std())
    return made


@built_once
def write_folder(kind: Kind, place: Path) -> Path:
    """The diffusers folder of a kind, saved by diffusers; T5 in several shards, as the released ones are."""
    made = networks(kind)
    pipeline = StableDiffusion3Pipeline(
        **made, tokenizer=tiny.write_tokenizer(place / "work" / "1", END),
        tokenizer_2=tiny.write_tokenizer(place / "work" / "2", "!"),
        tokenizer_3=write_t5_tokenizer(place / "work" / "3") if kind.t5 else None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip
    folder = place / kind.name
    pipeline.save_pretrained(folder)
    if kind.t5:
        shutil.rmtree(folder / "text_encoder_3")
        made["text_encoder_3"].save_pretrained(folder / "text_encoder_3", max_shard_size="200KB")
        assert len(list((folder / "text_encoder_3").glob("*.safetensors"))) > 1
    return folder


def read_folder(folder: Path, kind: Any = StableDiffusion3Pipeline) -> Any:
    """Diffusers' own pipeline of a folder; it wants to be told where there is no T5."""
    absent = [part for part in ("text_encoder_3", "tokenizer_3") if not (folder / part).is_dir()]
    pipeline = kind.from_pretrained(folder, local_files_only=True, **dict.fromkeys(absent))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def single_state(kind: Kind, folder: Path) -> dict[str, torch.Tensor]:
    """The same weights under the names of a single file, with what released files hold besides."""

    def stored(part: str) -> dict[str, torch.Tensor]:
        files = sorted((folder / part).glob("*.safetensors"))
        return {name: tensor for file in files for name, tensor in load_file(file).items()}

    mmdit = mmdit_ldm(kind.config).invert(mmdit_diffusers(kind.config).convert(stored("transformer")))
    parts = {"model.diffusion_model.": mmdit}
    parts["first_stage_model."] = vae_ldm(VAE).invert(vae_diffusers(VAE).convert(stored("vae")))
    for part, name, config in (("text_encoder", "clip_l", CLIP_L), ("text_encoder_2", "clip_g", CLIP_G)):
        table = clip_transformers(config)
        parts[f"text_encoders.{name}.transformer."] = table.invert(table.convert(stored(part)))
    del parts["text_encoders.clip_l.transformer."]["text_projection.weight"]
    parts["text_encoders.clip_l."] = {"logit_scale": torch.tensor(4.6)}
    if kind.t5:
        parts["text_encoders.t5xxl.transformer."] = t5 = stored("text_encoder_3")
        t5["encoder.embed_tokens.weight"] = t5["shared.weight"].clone()
    return {prefix + name: tensor.contiguous() for prefix, part in parts.items() for name, tensor in part.items()}


def write_single(kind: Kind, folder: Path, path: Path, **metadata: str) -> Path:
    """A .safetensors file in the native layout, and T5's vocabulary beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(single_state(kind, folder), path, metadata=metadata or None)
    if kind.t5:
        shutil.copytree(folder / "tokenizer_3", path.parent / "tokenizer_3")
    return path
