"""Adapter files of tiny models in several key styles, with the same numbers under every spelling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.weights.networks.clip import clip_transformers
from stable_diffusion.weights.networks.unet import unet_diffusers

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
PROJ = "down_blocks.0.attentions.0.proj_in"
CONV = "down_blocks.0.resnets.0.conv1"
TEXT = "text_model.encoder.layers.1.self_attn.v_proj"
FC = "text_model.encoder.layers.0.mlp.fc1"
RANK, ALPHA = 2, 1.0


def shapes(model: StableDiffusion) -> dict[str, tuple[int, ...]]:
    """Weight shapes of a model in the diffusers layout, by path."""
    unet = unet_diffusers(model.parts.unet.config).invert(model.parts.unet.state_dict())
    text = clip_transformers(model.parts.clip.config).invert(model.parts.clip.state_dict())
    return {name.removesuffix(".weight"): tuple(tensor.shape) for name, tensor in {**unet, **text}.items()}


def factors(shape: tuple[int, ...], seed: int, rank: int = RANK, size: float = 0.3) -> tuple[Tensor, Tensor]:
    """(up, down) of a LoRA for a weight of this shape."""
    generator = torch.Generator().manual_seed(seed)
    kernel = shape[2:]
    up = torch.randn(shape[0], rank, *[1] * len(kernel), generator=generator) * size
    return up, torch.randn(rank, *shape[1:], generator=generator) * size


def lora_state(
    model: StableDiffusion, paths: tuple[str, ...], spell: Callable[[str], tuple[str, str, str]]
) -> dict[str, Tensor]:
    """Tensors under the names (up, down, alpha) that `spell` makes of a path; no alpha where its name is empty."""
    sizes, state = shapes(model), {}
    for seed, path in enumerate(paths):
        up_name, down_name, alpha_name = spell(path)
        state[up_name], state[down_name] = factors(sizes[path], seed)
        if alpha_name:
            state[alpha_name] = torch.tensor(ALPHA)
        else:
            state[up_name] = state[up_name] * (ALPHA / RANK)
    return {name: tensor.contiguous() for name, tensor in state.items()}


def kohya(path: str) -> tuple[str, str, str]:
    stem = ("lora_te_" if path.startswith("text_model.") else "lora_unet_") + path.replace(".", "_")
    return f"{stem}.lora_up.weight", f"{stem}.lora_down.weight", f"{stem}.alpha"


ALL = (QUERY, OUT, PROJ, CONV, TEXT, FC)
