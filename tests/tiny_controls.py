"""Tiny random side networks, made by diffusers, and the same weights in the other layouts that files have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, ControlNetUnionModel, T2IAdapter
from PIL import Image
from safetensors.torch import save_file

from stable_diffusion.models.controlnet import ControlNetConfig
from stable_diffusion.models.unet import UNetConfig
from stable_diffusion.weights.networks.controlnet import controlnet_diffusers, controlnet_ldm

State = dict[str, torch.Tensor]
CHANNELS = (32, 64)


def filled(module: Any, seed: int, size: float = 0.05) -> Any:
    """The module with noise on every parameter, those that start at zero too, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    return module.eval()


def controlnet(config: UNetConfig, seed: int = 1, kind: Any = ControlNetModel, **settings: Any) -> Any:
    """diffusers' ControlNet for the U-Net of this shape."""
    attends = [stage.attends for stage in config.down_stages()]
    depths = [max(1, *stage.depths) for stage in config.down_stages()]
    heads = [config.heads_at(stage) for stage in range(len(attends))]
    if config.vector_dim is not None:
        settings |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": config.vector_dim,
        }
    made = kind(
        block_out_channels=config.channels, layers_per_block=2, cross_attention_dim=config.context_dim,
        down_block_types=tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        attention_head_dim=heads, transformer_layers_per_block=depths, use_linear_projection=config.linear_projection,
        **settings,
    )  # fmt: skip
    return filled(made, seed)


def union(config: UNetConfig, seed: int = 1, tasks: int = 6) -> Any:
    width = config.channels[0]
    return controlnet(
        config, seed, ControlNetUnionModel, num_control_type=tasks, num_trans_channel=width, num_proj_channel=width,
        conditioning_embedding_out_channels=(16, 32, 96, 256),
    )  # fmt: skip


def shape(config: UNetConfig, tasks: int = 0) -> ControlNetConfig:
    """Our own shape of such a ControlNet."""
    fields = {name: getattr(config, name) for name in UNetConfig.__dataclass_fields__}
    return ControlNetConfig(**{**fields, "out_channels": 4, "up_depth": None}, tasks=tasks)


def ldm_state(config: UNetConfig, state: State, prefix: str = "control_model.") -> State:
    ours = controlnet_diffusers(shape(config)).convert(state)
    return {prefix + name: tensor for name, tensor in controlnet_ldm(shape(config)).invert(ours).items()}


def write(state: State, path: Path, **metadata: str) -> Path:
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    save_file(tensors, path, metadata=metadata or None)
    return path


def t2i_adapter(kind: str, channels: list[int], seed: int = 2, picture: int = 3) -> Any:
    factor = 16 if kind == "full_adapter_xl" else 8
    return filled(T2IAdapter(picture, channels, 2, factor, kind), seed)


def released_t2i(state: State, blocks: int = 2) -> State:
    """diffusers' names as those of the first releases."""
    light = any(".out_conv." in name for name in state)
    found = {}
    for name, tensor in state.items():
        parts = name.removeprefix("adapter.").split(".")
        if parts[0] == "body" and not light:
            first = int(parts[1]) * blocks
            parts = ["body", str(first), *parts[2:]] if parts[2] == "in_conv" else [
                "body", str(first + int(parts[3])), *parts[4:]
            ]  # fmt: skip
        elif parts[0] == "body" and parts[2] == "resnets":
            parts[2] = "body"
        found[".".join(parts)] = tensor
    return found


def ip_adapter_state(unet: Any, context: int, features: int, *, plus: bool, seed: int = 3) -> State:
    """An IP-Adapter in the released layout for diffusers' U-Net: keys and values by the odd numbers of attentions."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int, size: float = 0.1) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * size

    state: State = {}
    widths = [
        unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for name in unet.attn_processors
        if "attn2" in name
    ]
    for index, width in enumerate(widths):
        for part in ("k", "v"):
            state[f"ip_adapter.{2 * index + 1}.to_{part}_ip.weight"] = noise(width, context)
    start = "image_proj."
    if not plus:
        state |= {f"{start}proj.weight": noise(4 * context, features), f"{start}proj.bias": noise(4 * context)}
        return state | {f"{start}norm.weight": 1 + noise(context), f"{start}norm.bias": noise(context)}
    width = 128  # two heads of the usual 64
    state |= {f"{start}latents": noise(1, 5, width, size=0.5)}
    for name, sizes in {"proj_in": (width, features), "proj_out": (context, width)}.items():
        state |= {f"{start}{name}.weight": noise(*sizes), f"{start}{name}.bias": noise(sizes[0])}
    state |= {f"{start}norm_out.weight": 1 + noise(context), f"{start}norm_out.bias": noise(context)}
    for layer in range(4):  # as many as diffusers takes for granted
        place = f"{start}layers.{layer}"
        for name in ("0.norm1", "0.norm2", "1.0"):
            state |= {f"{place}.{name}.weight": 1 + noise(width), f"{place}.{name}.bias": noise(width)}
        state |= {f"{place}.0.to_q.weight": noise(width, width), f"{place}.0.to_kv.weight": noise(2 * width, width)}
        state |= {f"{place}.0.to_out.weight": noise(width, width)}
        state |= {f"{place}.1.1.weight": noise(4 * width, width), f"{place}.1.3.weight": noise(width, 4 * width)}
    return state


def picture(width: int, height: int, seed: int = 5) -> Image.Image:
    """A smooth random picture of any size, and not grey."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
