"""The shapes of the released models, from which other scripts build networks of full size."""

from __future__ import annotations

from dataclasses import replace

from stable_diffusion.models.clip import CLIPTextConfig
from stable_diffusion.models.mmdit import MMDiTConfig
from stable_diffusion.models.t5 import T5Config
from stable_diffusion.models.unet import UNetConfig
from stable_diffusion.models.vae import VAEConfig

SD1 = UNetConfig()
SD2 = UNetConfig(context_dim=1024, head_dim=64, linear_projection=True)
SDXL = UNetConfig(
    channels=(320, 640, 1280), transformer_depth=(0, 2, 10), mid_depth=10, head_dim=64, context_dim=2048,
    vector_dim=2816, linear_projection=True,
)  # fmt: skip
REFINER = UNetConfig(
    channels=(384, 768, 1536, 1536), transformer_depth=(0, 4, 4, 0), mid_depth=4, head_dim=64, context_dim=1280,
    vector_dim=2560, linear_projection=True,
)  # fmt: skip
SSD_1B = replace(SDXL, transformer_depth=(0, 2, 4), up_depth=(0, (2, 1, 1), (4, 4, 10)), mid_depth=0, mid_blocks=1)
SD3 = MMDiTConfig()
SD35_MEDIUM = replace(SD3, positions=384, qk_norm=True, dual_attention=tuple(range(13)))
SD35_LARGE = replace(SD3, width=2432, depth=38, heads=38, qk_norm=True)
CLIP_L = CLIPTextConfig()
OPENCLIP_H = CLIPTextConfig(width=1024, layers=24, heads=16, mlp_width=4096, activation="gelu", projection_dim=1024)
OPENCLIP_G = CLIPTextConfig(width=1280, layers=32, heads=20, mlp_width=5120, activation="gelu", projection_dim=1280)
T5 = T5Config()
SD_VAE, SD3_VAE = VAEConfig(), VAEConfig(latent_channels=16, quant_conv=False)
