"""Small models of every family written as one file in any layout, at any place and inside any wrapper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.mmdit import MMDiT, MMDiTConfig
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.weights.checkpoints.families import FAMILIES
from stable_diffusion.weights.networks.clip import CLIP_LAYOUTS
from stable_diffusion.weights.networks.mmdit import MMDIT_LAYOUTS
from stable_diffusion.weights.networks.unet import UNET_LAYOUTS
from stable_diffusion.weights.networks.vae import VAE_LAYOUTS

State = dict[str, torch.Tensor]
CLIP = {"vocab_size": 72, "layers": 2, "mlp_width": 80, "eos_token_id": 71, "context_length": 9}
FIRST = CLIPTextConfig(width=64, heads=1, **CLIP)  # type: ignore[arg-type]
SECOND = CLIPTextConfig(width=128, heads=2, activation="gelu", projection_dim=48, **CLIP)  # type: ignore[arg-type]
STAGES: dict[str, Any] = {"channels": (64, 64), "transformer_depth": (1, 0), "mid_depth": 1, "blocks_per_stage": 1}
LATENT4 = VAEConfig(channels=(32, 64), blocks_per_stage=1, latent_channels=4)


@dataclass(frozen=True, eq=False)
class Model:
    """A family by its networks: field of `Parts` -> (class, config, layouts, place in released files)."""

    family: str
    networks: Mapping[str, tuple[Any, Any, Any, str]]


def _unet(**more: Any) -> tuple[Any, Any, Any, str]:
    return UNet, UNetConfig(**STAGES, **more), UNET_LAYOUTS, "model.diffusion_model."


def _texts(family: str, *configs: CLIPTextConfig) -> dict[str, tuple[Any, Any, Any, str]]:
    places = [text.prefix for text in FAMILIES[family].texts]
    named = zip(("clip", "clip2"), configs, places, strict=False)
    return {name: (CLIPText, config, CLIP_LAYOUTS, place) for name, config, place in named}


def _vae(config: VAEConfig) -> tuple[Any, Any, Any, str]:
    return VAE, config, VAE_LAYOUTS, "first_stage_model."


MMDIT = MMDiTConfig(width=128, depth=2, heads=2, context_dim=192, vector_dim=64 + 48, positions=4, in_channels=16,
                    out_channels=16)  # fmt: skip
LATENT16 = VAEConfig(channels=(32, 64), blocks_per_stage=1, latent_channels=16, quant_conv=False)
MODELS = (
    Model("sd1", {"unet": _unet(heads=8, context_dim=64), "vae": _vae(LATENT4), **_texts("sd1", FIRST)}),
    Model("sd2-base", {"unet": _unet(head_dim=64, context_dim=64, linear_projection=True), "vae": _vae(LATENT4),
                       **_texts("sd2", FIRST)}),
    Model("sdxl", {"unet": _unet(head_dim=64, context_dim=192, linear_projection=True, vector_dim=48 + 6 * 256),
                   "vae": _vae(LATENT4), **_texts("sdxl", FIRST, SECOND)}),
    Model("sd3", {"unet": (MMDiT, MMDIT, MMDIT_LAYOUTS, "model.diffusion_model."), "vae": _vae(LATENT16),
                  **_texts("sd3", FIRST, SECOND)}),
)  # fmt: skip
PLACES = {
    "unet": ("diffusion_model.", "unet.", "transformer.", ""),
    "vae": ("vae.", "autoencoder.", ""),
    "clip": ("text_encoder.", "te.", "clip_l."),
    "clip2": ("text_encoder_2.", "te2.", "clip_g."),
}
"""Other places than that of the released files."""
INNER = ("", "_orig_mod.", "module.", "_forward_module.", "_fsdp_wrapped_module._orig_mod.")
OUTER = ("", "state_dict.", "module.", "state_dict.module.", "_orig_mod.", "_forward_module.", "model.")
EXTRA = {
    "vae": ("loss.logvar", "loss.discriminator.main.0.weight"),
    "clip": (
        "vision_model.embeddings.class_embedding",
        "visual_projection.weight",
        "visual.conv1.weight",
        "logit_scale",
    ),
}
"""Tensors of a training's other half that files have beside a network."""


@cache
def weights(model: Model, network: str) -> State:
    """Random weights of a network, in our names."""
    kind, config, _, _ = model.networks[network]
    torch.manual_seed(0)
    made = kind(config).state_dict()
    return {name: torch.randn_like(tensor) for name, tensor in made.items()}


def layouts_of(model: Model, network: str) -> list[str]:
    """The layouts that a network of this shape can be written in."""
    _, config, known, _ = model.networks[network]
    # the names of stable-diffusion.cpp differ in the projection alone
    return [name for name in known if name != "cpp" or config.projection_dim is not None]


def written(model: Model, network: str, layout: str, place: str, inner: str, *, extra: bool = False) -> State:
    """A network's tensors as a file has them."""
    _, config, known, _ = model.networks[network]
    state = {
        name: tensor.contiguous()
        for name, tensor in known[layout].table(config).invert(weights(model, network)).items()
    }
    state |= {name: torch.zeros(2) for name in EXTRA.get(network, ()) if extra}
    return {place + inner + name: tensor for name, tensor in state.items()}


def write(path: Path, parts: list[State], outer: str = "") -> Path:
    """One file of all parts."""
    save_file({outer + name: tensor for part in parts for name, tensor in part.items()}, path)
    return path
