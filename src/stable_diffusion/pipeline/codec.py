"""Pictures to latents and back: the two halves of the autoencoder, each usable alone.

Shapes: B batch, C picture channels, H W picture size, c h w latent channels and size.
"""

from __future__ import annotations

import copy
import functools
import warnings
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from ..engine.base import Engine
from ..engine.memory import available_memory, is_out_of_memory
from ..engine.torch import TORCH
from ..errors import InvalidRequest, what_is
from ..images import Pictures
from ..latents import LatentFormat
from ..models.tiny_vae import TinyVAE
from ..models.vae import VAE
from ..request.pictures import open_picture
from .image import from_model, to_images, to_model
from .tasks.tiles import LEAST, TILE, decode_tiled, decoding_bytes

AnyVAE: TypeAlias = VAE | TinyVAE
Tiling: TypeAlias = Literal["auto", "always", "never"]
TILINGS: tuple[Tiling, ...] = ("auto", "always", "never")
SMALL = 2**27
"""Bytes that are decoded without asking what memory there is."""


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

    @torch.no_grad()
    def __call__(self, image: Any, *, seed: int | None = None) -> Tensor:
        """A picture in any form that `open_picture` takes, or a tensor [B,C,H,W] or [C,H,W] in [-1, 1], of RGB or of
        RGBA with premultiplied colour.

        The latent is the mean of the encoder's distribution, or with `seed` a sample of it. Where half precision
        overflows (the autoencoder of SDXL) it goes on in float32. InvalidRequest where a side is not a multiple of the
        autoencoder's downscale.
        """
        channels = self.vae.config.image_channels
        if isinstance(image, Tensor) and image.is_floating_point():
            image = _model_picture(image, channels)
        else:
            image = to_model(open_picture(image), channels)
        gaussian = TORCH.network(self.vae, "image_encoder")(image.to(self.device, self.dtype))
        if self.dtype != torch.float32 and not bool(torch.isfinite(gaussian.mode).all()):
            gaussian = self._full.encode(image.to(self.device, torch.float32))
        latent = gaussian.mode.float()
        if seed is not None:
            noise = torch.randn(latent.shape, generator=torch.Generator("cpu").manual_seed(seed))
            latent = gaussian.sample(noise=noise.to(latent.device)).float()
        return self.latents.normalise(latent)

    @functools.cached_property
    def _full(self) -> AnyVAE:
        return copy.deepcopy(self.vae).float()


def batched_latent(latent: Tensor, channels: int) -> Tensor:
    """A latent [B,c,h,w], or [c,h,w] for one, as [B,c,h,w]; InvalidRequest where it is none of a model."""
    if isinstance(latent, Tensor):
        whole = latent[None] if latent.ndim == 3 else latent
        if whole.ndim == 4 and whole.shape[1] == channels and whole.numel():
            return whole
    raise InvalidRequest(
        f"the latent is {what_is(latent)}; expected a tensor [B,{channels},h,w], as image_encoder makes it of a picture"
    )


def _model_picture(picture: Tensor, channels: int) -> Tensor:
    """A picture as the autoencoder takes it, [B,channels,H,W], from one that may lack the batch, or be opaque."""
    whole = picture[None] if picture.ndim == 3 else picture
    if channels == 4 and whole.ndim == 4 and whole.shape[1] == 3:
        whole = torch.cat([whole, torch.ones_like(whole[:, :1])], dim=1)
    if whole.ndim != 4 or whole.shape[1] != channels:
        raise InvalidRequest(f"the picture has shape {list(picture.shape)}; expected [B,{channels},H,W]")
    return whole


class ImageDecoder:
    """`image_decoder(latent)` -> Pillow pictures, RGB or RGBA as the model makes them.

    `tiny` is a small decoder of the same latent space that previews are made with, if there is one. `tiling` says when
    a picture is decoded in tiles (see `pipeline.tiles`): "auto" where it would need more memory than there is.
    """

    tiny: TinyVAE | None = None
    tiling: Tiling = "auto"

    def __init__(
        self,
        vae: AnyVAE,
        latents: LatentFormat,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.vae, self.latents, self.device, self.dtype = vae, latents, torch.device(device), dtype

    def __call__(self, latent: Tensor) -> Pictures:
        """latent [B,c,h,w], or [c,h,w] for one -> B pictures. InvalidRequest where it is no latent of this model."""
        if not bool(torch.isfinite(batched_latent(latent, self.latents.channels)).all()):
            raise InvalidRequest("the latent holds NaN or infinite numbers; expected finite ones")
        return Pictures(to_images(self.straight(latent)))

    def straight(self, latent: Tensor) -> Tensor:
        """latent [B,c,h,w] -> [B,C,H,W] in [0, 1], straight alpha, float32: the pictures before rounding to 8 bits."""
        return from_model(self.tensor(latent))

    @torch.no_grad()
    def tensor(self, latent: Tensor, engine: Engine = TORCH, *, seamless: bool = False) -> Tensor:
        """latent [B,c,h,w] -> what the decoder gives, [B,C,H,W] about [-1, 1], float32 (RGBA: premultiplied).

        A picture that overflows in half precision (black in many tools) is decoded in float32, which is said once. What
        was decoded before makes no difference to it. With `seamless` edges meet, so that it is never made in tiles.
        """
        latent = batched_latent(latent, self.latents.channels)
        ready = self.latents.denormalise(latent.to(self.device, torch.float32))
        # row by row: less memory, and a picture never depends on its neighbours
        return torch.cat([self._fitting(row[None], engine, seamless) for row in ready])

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

    def _fitting(self, row: Tensor, engine: Engine, seamless: bool) -> Tensor:
        """One picture, whole or in tiles: as `tiling` says, and where there is not the memory for the whole."""
        if seamless or self.tiling == "never":
            return self._decode(row, engine)
        if self.tiling == "always":
            return self._tiled(row, engine)
        needed = decoding_bytes(self.vae.config, row.shape[-2], row.shape[-1], self.dtype.itemsize)
        free = available_memory(self.device) if needed > SMALL else None
        if free is not None and needed > free:
            warnings.warn(
                f"the picture is decoded in tiles: decoding it whole takes about {needed / 2**30:.1f} GiB, and "
                f"{free / 2**30:.1f} GiB of memory are free",
                stacklevel=4,
            )
            return self._tiled(row, engine)
        try:
            return self._decode(row, engine)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        warnings.warn("the picture is decoded in tiles: there is not enough memory to decode it whole", stacklevel=4)
        return self._tiled(row, engine)

    def _tiled(self, row: Tensor, engine: Engine) -> Tensor:
        """One picture in tiles, which become smaller where there is not the memory for one."""
        tile = TILE
        while True:
            try:
                return decode_tiled(partial(self._decode, engine=engine), row, self.latents.downscale, tile)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or tile <= LEAST:
                    raise
            tile //= 2

    def _decode(self, row: Tensor, engine: Engine) -> Tensor:
        """One latent as the autoencoder has it -> one picture."""
        picture: Tensor = engine.network(self.vae, "image_decoder")(row.to(self.dtype)).float()
        overflowed = not bool(torch.isfinite(picture).all()) and bool(torch.isfinite(row).all())
        if not overflowed or self.dtype == torch.float32:
            return picture
        if "_full" not in self.__dict__:
            warnings.warn(f"the image decoder overflowed in {self.dtype}; it goes on in float32", stacklevel=3)
        picture = engine.network(self._full, "image_decoder")(row)
        return picture.float()

    @functools.cached_property
    def _full(self) -> AnyVAE:
        return copy.deepcopy(self.vae).float()


def tiny_decoder(path: str, latents: LatentFormat, device: torch.device, dtype: torch.dtype) -> TinyVAE:
    """A tiny autoencoder for previews; InvalidRequest where it is none, or for other latents than these."""
    from ..weights.checkpoints.components import check_latents, load_vae

    vae = load_vae(path, device=device, dtype=dtype)
    if not isinstance(vae, TinyVAE):
        raise InvalidRequest(f"{path} is a whole autoencoder, too slow for previews; a tiny one (TAESD) is expected")
    check_latents(latents, vae.config)
    return vae
