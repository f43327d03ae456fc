"""Pictures to latents and back: the two halves of the autoencoder, each usable alone.

Shapes: B batch, C picture channels, H W picture size, c h w latent channels and size.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..errors import InvalidRequest
from ..latents import LatentFormat
from ..models.tiny_vae import TinyVAE
from ..models.vae import VAE, Gaussian
from ..request.pictures import open_picture
from .image import from_model, to_images, to_model

AnyVAE = VAE | TinyVAE


class ImageEncoder:
    """`image_encoder(picture)` -> latent [B,c,h,w] in which diffusion happens, about unit variance, float32."""

    def __init__(
        self,
        vae: AnyVAE,
        latents: LatentFormat,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.vae, self.latents, self.device, self.dtype = vae, latents, torch.device(device), dtype
        self._full: AnyVAE | None = None

    @torch.no_grad()
    def __call__(self, image: Image.Image | str | Path | Tensor, *, seed: int | None = None) -> Tensor:
        """A Pillow picture, the path of one, or a tensor [B,C,H,W] in [-1, 1] (RGBA: premultiplied colour).

        The latent is the mean of the encoder's distribution, or with `seed` a sample of it. Where half precision
        overflows (the autoencoder of SDXL) it goes on in float32. InvalidRequest where a side is not a multiple of the
        autoencoder's downscale.
        """
        if not isinstance(image, Tensor):
            image = to_model(open_picture(image), self.vae.config.image_channels)
        if image.ndim != 4 or image.shape[1] != self.vae.config.image_channels:
            raise InvalidRequest(
                f"the picture has shape {list(image.shape)}; expected [B,{self.vae.config.image_channels},H,W]"
            )
        gaussian = self._encode(image)
        if self._precision != torch.float32 and not bool(torch.isfinite(gaussian.mode).all()):
            self._full = copy.deepcopy(self.vae).float()
            gaussian = self._encode(image)
        latent = gaussian.mode.float()
        if seed is not None:
            noise = torch.randn(latent.shape, generator=torch.Generator("cpu").manual_seed(seed))
            latent = gaussian.sample(noise=noise.to(latent.device)).float()
        return self.latents.normalise(latent)

    @property
    def _precision(self) -> torch.dtype:
        return self.dtype if self._full is None else torch.float32

    def _encode(self, image: Tensor) -> Gaussian:
        vae = self.vae if self._full is None else self._full
        return vae.encode(image.to(self.device, self._precision))


class ImageDecoder:
    """`image_decoder(latent)` -> Pillow pictures, RGB or RGBA as the model makes them.

    `tiny` is a small decoder of the same latent space that previews are made with, if there is one.
    """

    tiny: TinyVAE | None = None

    def __init__(
        self,
        vae: AnyVAE,
        latents: LatentFormat,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.vae, self.latents, self.device, self.dtype = vae, latents, torch.device(device), dtype
        self._full: AnyVAE | None = None

    def __call__(self, latent: Tensor) -> list[Image.Image]:
        """latent [B,c,h,w] -> B pictures."""
        return to_images(self.straight(latent))

    def straight(self, latent: Tensor) -> Tensor:
        """latent [B,c,h,w] -> [B,C,H,W] in [0, 1], straight alpha, float32: the pictures before rounding to 8 bits."""
        return from_model(self.tensor(latent))

    @torch.no_grad()
    def tensor(self, latent: Tensor) -> Tensor:
        """latent [B,c,h,w] -> what the decoder gives, [B,C,H,W] about [-1, 1], float32 (RGBA: premultiplied).

        Where half precision overflows (black pictures in many tools) the decoder goes on in float32, and says so once.
        """
        picture = self._decode(latent)
        overflowed = not bool(torch.isfinite(picture).all()) and bool(torch.isfinite(latent).all())
        if overflowed and self._full is None and self.dtype != torch.float32:
            warnings.warn(f"the image decoder overflowed in {self.dtype}; it goes on in float32", stacklevel=2)
            self._full = copy.deepcopy(self.vae).float()
            picture = self._decode(latent)
        return picture

    @torch.no_grad()
    def preview(self, latent: Tensor, *, side: int = 256) -> Image.Image:
        """A small picture of the first latent: by the tiny decoder, else by the linear map of its latent space, else by
        the decoder itself."""
        if self.tiny is not None:
            (image,) = to_images(from_model(self.tiny.decode(latent[:1].to(self.device, self.dtype)).float()))
            image.thumbnail((side, side))
            return image
        rgb = self.latents.preview_rgb(latent[:1])
        if rgb is None:
            (image,) = self(latent[:1])
        else:
            (image,) = to_images(from_model(rgb))
            scale = min(self.latents.downscale, max(1, side // max(image.size)))
            image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
        image.thumbnail((side, side))
        return image

    def _decode(self, latent: Tensor) -> Tensor:
        """Row by row: less memory, and a picture never depends on its neighbours."""
        vae, dtype = (self.vae, self.dtype) if self._full is None else (self._full, torch.float32)
        if latent.ndim != 4 or latent.shape[1] != self.latents.channels:
            raise InvalidRequest(f"the latent has shape {list(latent.shape)}; expected [B,{self.latents.channels},h,w]")
        ready = self.latents.denormalise(latent.to(self.device, torch.float32)).to(dtype)
        return torch.cat([vae.decode(row[None]) for row in ready]).float()
