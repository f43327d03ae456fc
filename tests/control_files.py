"""Random ControlNets on disk for U-Nets of any shape, made without any other library."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from stable_diffusion.models.controlnet import ControlNet, ControlNetConfig
from stable_diffusion.models.unet import UNetConfig
from stable_diffusion.weights.networks.controlnet import controlnet_diffusers, controlnet_ldm


def write_controlnet(path: Path, base: UNetConfig, seed: int = 1, tasks: int = 0) -> Path:
    """A plain one in the LDM layout, or a union that knows so many tasks in that of diffusers."""
    fields = {name: getattr(base, name) for name in UNetConfig.__dataclass_fields__}
    config = ControlNetConfig(**fields, tasks=tasks)
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: torch.randn(tensor.shape, generator=generator) * 0.2
        for name, tensor in ControlNet(config).state_dict().items()
    }
    table = controlnet_diffusers(config) if tasks else controlnet_ldm(config).prefixed("control_model.")
    save_file({name: tensor.contiguous() for name, tensor in table.invert(state).items()}, path)
    return path
