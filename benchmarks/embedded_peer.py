"""What diffusers would need for a picture of the built-in model: as many calls of as many rows of its U-Net of the same
shape, with random weights, on a latent folded into as many channels, and its scheduler's steps. It neither reads the
prompt nor decodes, so that its time is a lower bound.
"""

from __future__ import annotations

from typing import Any

import torch

from stable_diffusion.models.unet import UNet, UNetConfig


def diffusers_unet(config: UNetConfig) -> Any:
    """diffusers' U-Net of the same shape on latents folded as ours are, with random weights."""
    from diffusers import UNet2DConditionModel

    stages = config.down_stages()
    down = ["CrossAttnDownBlock2D" if stage.attends else "DownBlock2D" for stage in stages]
    vector: dict[str, Any] = {}
    if config.vector_dim is not None:
        vector = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": config.vector_dim}
    return UNet2DConditionModel(
        in_channels=config.in_channels * config.patch_size**2,
        out_channels=config.out_channels * config.patch_size**2,
        block_out_channels=config.channels,
        layers_per_block=config.blocks_per_stage,
        cross_attention_dim=config.context_dim,
        attention_head_dim=[stage.heads for stage in stages],  # diffusers' name for the number of heads
        use_linear_projection=config.linear_projection,
        norm_num_groups=config.groups,
        down_block_types=down,
        up_block_types=[name.replace("Down", "Up") for name in reversed(down)],
        **vector,
    ).eval()


def peer(config: UNetConfig, size: tuple[int, int], tokens: int, steps: int, calls: int, guided: bool) -> Any:
    """What the peer does for one picture: `steps` of its scheduler, `calls` calls of the U-Net in each."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    unet, scheduler = diffusers_unet(config), FlowMatchEulerDiscreteScheduler()
    rows, patch = 2 if guided else 1, config.patch_size
    shape = (1, config.in_channels * patch**2, *(side // patch for side in size))
    text = torch.randn(rows, tokens, config.context_dim)
    vector = None if config.vector_dim is None else torch.randn(rows, config.vector_dim)

    @torch.inference_mode()
    def generate() -> None:
        x = torch.randn(shape)
        scheduler.set_timesteps(steps)
        for timestep in scheduler.timesteps:
            for _ in range(calls):
                found = unet(x.expand(rows, -1, -1, -1), timestep, text, class_labels=vector).sample
            guess = found if rows == 1 else found[:1] + 3 * (found[1:] - found[:1])
            x = scheduler.step(guess, timestep, x).prev_sample

    ours = sum(parameter.numel() for parameter in _meta(config).parameters())
    theirs = sum(parameter.numel() for parameter in unet.parameters())
    assert abs(theirs / ours - 1) < 0.02, f"the peer has {theirs} parameters, ours {ours}"
    return generate


def _meta(config: UNetConfig) -> UNet:
    with torch.device("meta"):
        return UNet(config)
