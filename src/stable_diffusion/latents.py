"""What a latent space looks like from outside: channels, normalisation, downscale factor, cheap preview."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LatentFormat:
    """latent = (vae_latent - shift) * scale; `scale` and `shift` are numbers or one number per channel.

    `preview` holds one row of (red, green, blue) per latent channel, and `preview_bias` the constant term: a linear map
    from latent to [-1, 1] colours, good enough to watch a picture form (least-squares fit per latent space).
    """

    channels: int
    downscale: int = 8
    scale: float | tuple[float, ...] = 1.0
    shift: float | tuple[float, ...] = 0.0
    preview: tuple[tuple[float, float, float], ...] | None = None
    preview_bias: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def normalise(self, vae_latent: Tensor) -> Tensor:
        """VAE latent [B,C,H,W] to the unit-scale latent in which diffusion happens."""
        return (vae_latent - self._per_channel(self.shift, vae_latent)) * self._per_channel(self.scale, vae_latent)

    def denormalise(self, latent: Tensor) -> Tensor:
        """Inverse of `normalise`."""
        return latent / self._per_channel(self.scale, latent) + self._per_channel(self.shift, latent)

    def preview_rgb(self, latent: Tensor) -> Tensor | None:
        """[B,C,H,W] -> [B,3,H,W] in [-1, 1], or None where this latent space has no preview factors."""
        if self.preview is None:
            return None
        factors = torch.tensor(self.preview, dtype=torch.float32, device=latent.device)
        bias = torch.tensor(self.preview_bias, dtype=torch.float32, device=latent.device)
        rgb = torch.einsum("bchw,cr->brhw", latent.float(), factors) + bias[:, None, None]
        return rgb.clamp(-1, 1)

    @staticmethod
    def _per_channel(value: float | tuple[float, ...], like: Tensor) -> Tensor | float:
        if isinstance(value, (int, float)):
            return float(value)
        return torch.tensor(value, dtype=like.dtype, device=like.device)[None, :, None, None]
